# SPDX-License-Identifier: Apache-2.0
"""``fuzz.py FIRST COUNT``: in a node, puts random flows in and prints as JSON what the switch logged of each, and how
they are explained with and without that log."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from typing import Any

from asap2.host.explain.deep import log_levels
from asap2.host.explain.explain import explain
from asap2.host.explain.flow import named, parse
from asap2.host.explain.probe import tried
from asap2.host.observe import observe
from asap2.host.openvswitch import SwitchError, ask, switch_pid
from asap2.host.switch_log import path
from tests.system.host.random_flows import flow

LAST = "f0220000-0000-0000-ffff-ffffffffffff"
"""A flow that is put in when all others were."""


def put(first: int, count: int) -> dict[str, dict[str, Any]]:
    """Put flows in; by id what was put, why the switch refused it at all, and what its flow API logged of it."""
    for module in log_levels(ask("vlog/list")):
        ask("vlog/set", f"{module}:file:dbg")
    ask("vlog/disable-rate-limit")
    done: dict[str, dict[str, Any]] = {}
    with path(switch_pid()).open() as log:
        log.seek(0, os.SEEK_END)
        for seed in range(first, first + count):
            made = flow(seed)
            refused = None
            try:
                ask("dpctl/add-flow", f"ufid:{made.ufid},{made.key}", made.actions)
            except SwitchError as error:
                refused = str(error)
            done[made.ufid] = {"text": made.text, "refused": refused, "log": None}
        ask("dpctl/add-flow", f"ufid:{LAST},in_port(2),eth(),eth_type(0xffff)", "drop")
        text = ""
        while LAST not in text:
            text += log.read()
    before: list[str] = []
    for line in text.splitlines():
        fields = line.split("|", 4)
        if len(fields) < 5 or "(" in fields[2]:
            continue  # the switch's other threads
        tried = (
            re.match(r".*put\[\w+\].* ?ufid:(\S+)", fields[4])
            if fields[2] in ("dpif_netlink", "dpif_offload")
            else None
        )
        if tried:
            if tried[1] in done:
                done[tried[1]]["log"] = before
            before = []
        else:
            before.append(fields[4])
    return done


def main(first: int, count: int) -> None:
    """Put flows in, and explain them."""
    done = put(first, count)
    host = observe(full=True, filters=False, openflow=False)
    ports = {str(one.number): one.name for one in host.openvswitch.datapath_ports}
    flows = {one.ufid: one for one in map(parse, host.openvswitch.datapath_flows)}
    for ufid, one in done.items():
        if ufid not in flows:
            flows[ufid] = named(parse(one["text"]), ports)
    done = {ufid: one for ufid, one in done.items() if one["log"] is not None}
    host = tried(host, [flows[ufid] for ufid in done if flows[ufid].offloaded != "yes"])
    started = tuple(line for line in host.openvswitch.log if "probe tc" in line or "flow API" in line)
    silent = dataclasses.replace(host, openvswitch=dataclasses.replace(host.openvswitch, log=started))
    for ufid, one in done.items():
        mine = flows[ufid]
        (loud,), (quiet,) = explain(host, [mine]), explain(silent, [mine])
        one |= {
            "dumped": mine.text,
            "dp": mine.dp,
            "loud": loud.code,
            "silent": [quiet.code, quiet.found, *quiet.others],
        }
        one["seen"] = [f"{each.source}: {each.seen}" for each in quiet.evidence]
        one["offloaded"] = mine.offloaded
    ask("dpctl/del-flows")
    print(json.dumps(list(done.values())))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
