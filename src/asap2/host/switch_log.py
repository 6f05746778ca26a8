# SPDX-License-Identifier: Apache-2.0
"""Read from ovs-vswitchd's log the lines of its flow API and TC layer, and those about refused flows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

TAIL = 4 << 20
"""How much of the log's end is read, in octets."""
MOST = 2000
"""Lines that are kept, the last ones, of those that are about flows."""
_RELEVANT = re.compile(
    r"\|(?:(?:netdev|dpif)_offload(?:_tc)?(?:_netdev)?|tc)(?:\([^)]*\))?\|"
    r"|failed to offload flow|put\[(?:create|modify)\] ufid:|failed to put\[|probe tc|flow API"
    r"|error reply to|opened log file"
)
_START = re.compile(r"flow API|Flow API Enabled|probe tc|failed to get ifindex|failed adding ingress qdisc")
"""What is logged once, when the switch starts or a port is added: these lines are kept however old."""
_PORT = re.compile(
    r"\|(?P<assigned>[^\s|]+): Assigned flow API"
    r"|\|(?P<none>[^\s|]+): No suitable flow API"
    r"|failed to get ifindex for (?P<index>[^\s|]+):"
    r"|\|(?P<failed>[^\s|]+): Failed assigning flow API"
    r"|Failed adding netdev (?P<refused>\S+) to dpif-offload provider tc"
)
_PUT = re.compile(r"put\[\w+\].* ?ufid:(\S+)")
NOTHING = (
    "added flow",
    "tunnel:",
    "vlan_id",
    "vlan_prio",
    "flow get",
    "updating old handle",
    "flow API",
    "Tried offloading",
)
"""What debug lines have that say nothing of a refusal."""


def path(pid: int | None) -> Path:
    """Where the log is: as the running switch, the process *pid*, was told, or Open vSwitch's default."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if pid else []
    except OSError:
        words = []
    for word in words:
        if word.startswith(b"--log-file="):
            return Path(os.fsdecode(word.removeprefix(b"--log-file=")))
    return Path(os.environ.get("OVS_LOGDIR", "/var/log/openvswitch")) / "ovs-vswitchd.log"


def relevant(pid: int | None) -> tuple[str, ...]:
    """The lines of the log of the switch *pid* that are about offload, oldest first; none where it cannot be read."""
    try:
        with path(pid).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return ()
    lines = [line for line in text.splitlines() if _RELEVANT.search(line)]
    return (*(line for line in lines[:-MOST] if _START.search(line)), *lines[-MOST:])


def ct_states(lines: Iterable[str]) -> int | None:
    """The states of connection tracking that the switch found TC to have (OVS_CS_F_*); None when it says none."""
    found = [line for line in lines if "probe tc: supported ovs ct_state bits:" in line]
    return int(found[-1].rpartition(" ")[2], 16) if found else None


def probes(lines: Iterable[str]) -> str | None:
    """What the switch found the kernel's TC to have when it started, a line each; None when its log does not go back
    to that."""
    found: list[str] | None = None
    for line in lines:
        if "probe tc: supported ovs ct_state bits:" in line:  # each start says that
            found = []
        if found is not None and "probe tc:" in line:
            found.append(line)
    return None if found is None else "\n".join(found)


def chains(flows: Iterable[str]) -> Iterator[int]:
    """The recirculation ids that the flows in TC of a dump lead to."""
    for flow in flows:
        if "dp:tc" in flow:
            yield from (int(one, 16) for one in re.findall(r"recirc\(0x([0-9a-f]+)\)", flow))


def without_flow_api(lines: Iterable[str]) -> dict[str, str]:
    """The ports that have no flow API, with the last line that says so: those that got one since are left out."""
    said: dict[str, str] = {}
    for line in lines:
        found = _PORT.search(line)
        if found and found["assigned"]:
            said.pop(found["assigned"], None)
        elif found:
            said[found["none"] or found["index"] or found["failed"] or found["refused"]] = line
    return said


def refusals(lines: Iterable[str]) -> dict[str, str]:
    """By flow id what the switch's debug log says before it put the flow elsewhere: the last line of its TC layer."""
    before: dict[str, str] = {}
    said: dict[str, str] = {}
    for line in lines:
        fields = line.split("|", 4)
        if len(fields) < 5:
            continue
        thread = fields[2].partition("(")[2]
        put = _PUT.search(fields[4])
        if put:
            said.pop(put[1], None)
            if thread in before:
                said[put[1]] = before.pop(thread)
        elif fields[3] == "INFO" or any(word in line for word in NOTHING):
            continue
        elif "failed to offload" not in line or thread not in before:
            before[thread] = fields[4]
    return said


def words(line: str) -> str:
    """A line without its number: when, who, what."""
    fields = line.split("|", 4)
    return f"{fields[0]} {fields[2]}: {fields[4]}" if len(fields) == 5 else line
