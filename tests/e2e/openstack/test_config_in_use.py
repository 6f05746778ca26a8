# SPDX-License-Identifier: Apache-2.0
"""A real cloud with the settings that `asap2 openstack config` makes on its node, and who is behind a representor."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.openstack.operator import Operator, address, wait_for

ASAP2 = f"{sys.executable} -m asap2.cli.main"
SERVICES = {"nova-compute": "nova.conf", "neutron-openvswitch-agent": "openvswitch_agent.ini"}
OURS = ("physical_network", "device_spec", "bridge_mappings", "local_ip", "tunnel_types", "firewall_driver")
"""Options of the node's files that are the settings' to make."""


def tell(operator: Operator, *words: str, node: int = 0) -> Any:
    """What ``asap2 WORDS --json`` prints on a node."""
    return json.loads(operator.sh(operator.nodes[node].node, f"{ASAP2} {shlex.join(words)} --json"))


def settings(operator: Operator) -> dict[str, str]:
    """The node's files by name, as made on the node of what its NIC is like."""
    words = ("--role", "compute", "--physical-network", "default", "--vlan-range", "100:199", "--tunnel")
    made = tell(operator, "openstack", "config", *words)
    return {Path(file["path"]).name: file["text"] for file in made["files"]}


def sections(text: str) -> dict[str, list[str]]:
    """The lines of a file's sections."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            section = found.setdefault(line, [])
        elif line and not line.startswith("#"):
            section.append(line)
    return found


def heartbeat(operator: Operator) -> str:
    """When nova heard of the first node's nova-compute last."""
    path = f"/v2.1/os-services?binary=nova-compute&host={operator.nodes[0].host}"
    (service,) = operator.call("compute", "GET", path)["services"]
    return str(service["updated_at"])


@contextmanager
def in_use(operator: Operator, made: dict[str, str]) -> Iterator[None]:
    """nova-compute and neutron's agent of the first node run with what was *made* in place of their own."""
    directory = operator.cloud.directory / "etc" / operator.nodes[0].host
    before = {name: (directory / name).read_text() for name in SERVICES.values()}

    def use(texts: dict[str, str]) -> None:
        with operator.without("neutron-openvswitch-agent"), operator.without("nova-compute"):
            for name, text in texts.items():
                (directory / name).write_text(text)
            last = heartbeat(operator)
        wait_for(lambda: heartbeat(operator) != last)  # a server that comes while it starts would be in error

    changed = {}
    for name, text in before.items():
        kept = [line for line in text.splitlines() if line.partition("=")[0].strip() not in OURS]
        new = sections(made[name])
        assert all(line.partition("=")[0].strip() in OURS for lines in new.values() for line in lines)
        new_lines = [line for section, lines in new.items() for line in (section, *lines)]
        changed[name] = "\n".join([*kept, *new_lines]) + "\n"
    use(changed)
    try:
        yield
    finally:
        operator.clear()
        use(before)


def test_servers_get_vfs_and_reach_each_other_with_the_settings_made_on_the_node(operator: Operator) -> None:
    if "tunnelled" not in operator.networks:
        operator.network("tunnelled", "10.58.0", "vxlan", None, None)
    made = settings(operator)
    with in_use(operator, made):
        checked = tell(operator, "openstack", "config", "--check", f"/run/openstack/etc/{operator.nodes[0].host}")
        assert checked["verdict"] == "ok"
        assert checked["summary"]["ok"] >= 3  # two entries of device_spec, and the bridge
        for network in ("private", "tunnelled"):
            ports = [operator.port(network), operator.port(network)]
            for number, port in enumerate(ports):
                operator.server(f"{network}{number}", [port], number)
            operator.ping(f"{network}0", ports[1])
            profile = operator.show_port(ports[0])["binding:profile"]
            assert profile["physical_network"] == ("default" if network == "private" else None)


def test_status_and_explain_name_novas_server_and_neutrons_port(operator: Operator) -> None:
    ports = [operator.port(), operator.port()]
    servers = [operator.server(f"vm{number}", [port], number) for number, port in enumerate(ports)]
    operator.ping("vm0", ports[1])
    representor = operator.representor(0, ports[0])
    wanted = {
        "representor": representor,
        "port": ports[0]["id"],
        "server": servers[0],
        "mac": ports[0]["mac_address"],
        "status": "active",
    }
    vfs = [vf for nic in tell(operator, "host", "status")["nics"] for vf in nic["vfs"]]
    assert [vf["attachment"] for vf in vfs if vf["representor"] == representor] == [wanted]
    flows = tell(operator, "host", "explain", representor)["flows"]
    assert flows
    assert all(wanted in flow["attachments"] for flow in flows)
    shown = operator.sh(operator.nodes[0].node, f"{ASAP2} host status")
    assert f"server {servers[0]}" in shown
    assert f"port {ports[0]['id']}" in shown
    assert address(ports[0])
