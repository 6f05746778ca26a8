# SPDX-License-Identifier: Apache-2.0
"""Requests that Open vSwitch or its datapath refused. No dump of flows shows them, only the log and the database.

Flows that the datapath does not take, OpenFlow messages that the switch rejects, interfaces in error, controllers and
managers that are not reached, and bridges that drop everything.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass

from asap2.host.inventory import SECURE, Bridge, Host, Remote

RECENT = 300
"""Seconds that a line of the log counts: what is refused and still wanted is asked for again, and logged again."""
PUT = re.compile(r"\|WARN\|\S+: failed to put(?:\[\w+\])* \((?P<error>[^)]*)\) (?:ufid:(?P<ufid>\S+) )?(?P<flow>.*)")
"""dpif.c's log_flow_message."""
REPLY = re.compile(
    r"\|connmgr\|INFO\|(?P<bridge>[^<|]+)<->(?P<peer>\S+):"
    r" sending (?P<error>\S+) error reply to (?P<message>\S+) message"
)
"""connmgr.c's ofconn_send_error."""
CHANGES = re.compile(r"OFPT_\w*MOD|OFPT_BUNDLE\w*|OFPT_PACKET_OUT|NXT_\w*MOD\w*|NXT_SET_\w*")
"""OpenFlow messages that change something: others are questions, which a controller may ask to learn what there is."""
STANDALONE = "standalone"


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal: its code (docs/reasons.md), the bridge or port that it is about, what was refused, how often, and the
    evidence, the log's last line of it or the host's state."""

    code: str
    about: str
    found: str
    times: int = 1
    evidence: str = ""


def refused(host: Host) -> list[Refused]:
    """Everything that was refused on *host*; of the log what is recent."""
    switch = host.openvswitch
    found = [*_interfaces(host), *(one for bridge in switch.bridges for one in _bridge(bridge))]
    if switch.running:
        found += [*_openflow(host), *_flows(host)]
    return found


def reached(remote: Remote) -> bool:
    """Whether a controller or manager is connected, or waits to be connected to."""
    return remote.connected or remote.target.startswith(("ptcp:", "pssl:", "punix:"))


def unreached(remote: Remote) -> str:
    """A controller or manager that is not reached, for people."""
    how = ", ".join(word for word in (remote.state.lower() if remote.state else "", remote.last_error or "") if word)
    since = f" for {remote.seconds} s" if remote.seconds else ""
    return f"{remote.target} is not connected{since}{f' ({how})' if how else ''}"


# ---- the database


def _interfaces(host: Host) -> Iterator[Refused]:
    for bridge in host.openvswitch.bridges:
        for port in bridge.ports:
            for one in port.interfaces:
                if one.error:
                    yield Refused("port.error", one.name, one.error, 1, f"ovs-vsctl get interface {one.name} error")


def _bridge(bridge: Bridge) -> Iterator[Refused]:
    secure = bridge.fail_mode == SECURE
    lost = [one for one in bridge.controllers if not reached(one)]
    if lost and len(lost) == len(bridge.controllers):
        then = "its rules stay as they are, and none are added" if secure else "it learns MACs by itself meanwhile"
        words = "; ".join(map(unreached, lost))
        mode = f"fail_mode {bridge.fail_mode or STANDALONE}"
        yield Refused("controller.unreachable", bridge.name, f"{words}; {mode}: {then}", 1, mode)
    if secure and bridge.flows == 0:
        seen = "ovs-ofctl dump-flows shows no rule"
        yield Refused("bridge.empty", bridge.name, "fail_mode secure, and no OpenFlow rule", 1, seen)


# ---- the log


def _recent(host: Host) -> Iterator[str]:
    """The lines of the log that are recent, as far as they have a time."""
    try:
        now = datetime.datetime.fromisoformat(host.taken)
    except ValueError:
        return
    for line in host.openvswitch.log:
        try:
            when = datetime.datetime.fromisoformat(line.partition("|")[0])
        except ValueError:
            continue
        if when.tzinfo and (now - when).total_seconds() <= RECENT:
            yield line


def _openflow(host: Host) -> Iterator[Refused]:
    counted: dict[tuple[str, str, str], tuple[int, str]] = {}
    for line in _recent(host):
        seen = REPLY.search(line)
        if seen and CHANGES.fullmatch(seen["message"]):
            key = seen["bridge"], seen["message"], seen["error"]
            counted[key] = counted.get(key, (0, ""))[0] + 1, line
    for (bridge, message, error), (times, line) in counted.items():
        yield Refused("openflow.refused", bridge, f"{message}: {error}", times, line)


def _flows(host: Host) -> Iterator[Refused]:
    """Flows that the datapath refused, and has not taken since; each once, by its text."""
    counted: dict[str, tuple[str, str, int, str]] = {}
    for line in _recent(host):
        seen = PUT.search(line)
        if seen:
            key = seen["ufid"] or seen["flow"]
            counted[key] = seen["flow"], seen["error"], counted.get(key, ("", "", 0, ""))[2] + 1, line
    names = {str(one.number): one.name for one in host.openvswitch.datapath_ports}
    there = "\n".join(host.openvswitch.datapath_flows)
    for key, (flow, error, times, line) in counted.items():
        if f"ufid:{key}" in there:
            continue
        port = re.search(r"in_port\(([^)]*)\)", flow)
        about = names.get(port[1], port[1]) if port else ""
        yield Refused("datapath.refused", about, f"{error}: {flow}", times, line.removesuffix(flow).rstrip())
