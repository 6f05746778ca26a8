# SPDX-License-Identifier: Apache-2.0
"""`asap2 host explain` on a chassis names OVN's logical flows and ports."""

from __future__ import annotations

import json
from typing import Any

from asap2.ovn.network import VM3
from tests.system.offload.labs import Bench


def explained(bench: Bench, node: str, port: str) -> list[dict[str, Any]]:
    """The flows of a port, with their reasons."""
    found: list[dict[str, Any]] = json.loads(bench.ok(node, f"asap2 host explain --json {port}"))["flows"]
    return found


def stages(flow: dict[str, Any]) -> dict[str, str]:
    """The actions of the logical flows behind a flow, by datapath and stage."""
    return {f"{one['datapath']} {one['stage']}": one["actions"] for one in (flow["logical"] or {"flows": ()})["flows"]}


def test_the_stage_that_answers_dhcp_is_named(bench: Bench) -> None:
    bench.ok(VM3.guest, "udhcpc -i eth0 -n -q -f")
    (flow,) = [one for one in explained(bench, "hv1", "eth1") if "udp(src=68,dst=67)" in one["flow"]]
    assert flow["code"] == "action.controller"
    assert "put_dhcp_opts" in stages(flow)["sw1 ls_in_dhcp_options"]
    assert VM3.guest in flow["logical"]["ports"]


def test_the_router_and_the_ports_of_an_offloaded_flow_are_named(bench: Bench) -> None:
    bench.ping(VM3.guest, "10.0.0.11")
    flows = [one for one in explained(bench, "hv1", "eth1") if one["code"] == "offloaded" and one["in_port"] == "eth1"]
    (flow,) = [one for one in flows if "dst=10.0.0.11" in one["flow"]]
    assert "ip.ttl--" in stages(flow)["r0 lr_in_ip_routing"]
    assert flow["logical"]["ports"] == ["vm3", "sw1-r0", "r0-sw0", "vm1"]
