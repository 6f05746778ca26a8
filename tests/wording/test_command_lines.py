# SPDX-License-Identifier: Apache-2.0
"""tc says of a representor, in software, what it says of a device of a real kernel's: word for word; and so does ip of
devices of our own kinds."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.offload.labs import Bench
from tests.system.realkernel import guest, machine

TOPOLOGY = """
[[node]]
name = "hv1"
openvswitch = false
[[node.nic]]
vfs = 2
"""
SWITCHDEV = """
for number in 1 2; do echo 0000:03:00.$number > /sys/bus/pci/drivers/mlx5_core/unbind; done
devlink dev eswitch set pci/0000:03:00.0 mode switchdev
for name in eth0 eth1; do ip link set $name up; done
"""
DEVICES = (
    f"tc qdisc del dev m{guest.MARKER_RELAY} clsact",
    "ip link add eth0 type veth peer name end0",
    "ip link add eth1 type veth peer name end1",
    "for name in eth0 eth1 end0 end1; do ip link set $name up; done",
    "modprobe -C /tmp/options.conf -d /tmp -a 8021q dummy vrf ipip sit ip6_tunnel macvlan geneve ip_gre ip6_gre",
    "ip link del dummy0",
)
_KINDS = (
    "gact",
    "mirred",
    "vlan",
    "pedit",
    "skbedit",
    "csum",
    "tunnel_key",
    "police",
    "ct",
    "sample",
    "mpls",
    "simple",
    "skbmod",
    "nat",
    "connmark",
    "ctinfo",
    "ife",
    "bpf",
)
_GONE = (*(f"qdisc del dev eth{n} ingress" for n in (0, 1)), *(f"actions flush action {kind}" for kind in _KINDS))
RESET = (f"printf '%s\\n' {' '.join(map(shlex.quote, _GONE))} | tc -force -batch -",)
"""One program: to start one is what takes time there."""
LINK_DEVICES = (
    "ip link add low0 address 02:00:00:00:01:01 type veth peer name far0",
    "ip link set low0 up",
    "ip link set far0 up",
)
"""What each part of link_lines.txt begins with."""
LINK_RESET = (
    "for name in $(ls /sys/class/net | grep -E '^(low|d[0-9]|x|q|vlan|bond|vrf)'); do ip link del $name; done",
)
_END = "=== status "
_ZONE_0 = re.compile(r' zone 0\b|"zone":0,')
"""What distributions' kernels tell of an action ct, and the one here, which has no zones, does not."""


def parts(name: str = "command_lines.txt") -> dict[str, tuple[str, ...]]:
    """The parts of a file of command lines by name."""
    found: dict[str, list[str]] = {}
    for line in Path(__file__).with_name(name).read_text().splitlines():
        if line.startswith("["):
            lines = found[line[1:].partition("]")[0]] = []
        elif line and not line.startswith("#"):
            lines.append(line)
    return {name: tuple(lines) for name, lines in found.items()}


@pytest.fixture(scope="module")
def lab() -> Iterator[Bench]:
    """A NIC in switchdev mode with two representors, and nothing else."""
    with Bench.running(TOPOLOGY) as bench:
        bench.ok("hv1", SWITCHDEV)
        yield bench


def said_here(bench: Bench, lines: tuple[str, ...]) -> list[tuple[int, str]]:
    """Exit status and output of each command line in the node."""
    script = "\n".join(f"( eval {shlex.quote(line)} ) 2>&1; status=$?; echo; echo '{_END}'$status" for line in lines)
    output = bench.run("hv1", script, 120).stdout
    *whole, rest = re.split(rf"\n{_END}(\d+)\n", output)
    assert not rest
    return [
        (int(status), _trimmed(_ZONE_0.sub("", text))) for text, status in zip(whole[::2], whole[1::2], strict=True)
    ]


@pytest.fixture(scope="module")
def there() -> dict[str, list[tuple[int, str]]]:
    """The same of a real kernel, by part: one boot for all."""
    asked = {name: (*lines, *RESET) for name, lines in parts().items()}
    asked |= {name: (*LINK_DEVICES, *lines, *LINK_RESET) for name, lines in parts("link_lines.txt").items()}
    lines = (*DEVICES, *(line for part in asked.values() for line in part))
    (result,) = machine.run([[machine.command(line) for line in lines]])
    answers = iter([answer[0] for answer in result.answers[len(DEVICES) :]])
    said = {name: [next(answers) for _ in part] for name, part in asked.items()}
    return {name: [(status, _trimmed(text.decode())) for status, _, text in one] for name, one in said.items()}


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


_LINKS_OWN = re.compile(
    r"(?m)^\d+: |(?<=ether )(?!02:00:00)[0-9a-f:]{17}|(?<= )addrgenmode .*$|(?<=version: )\d\.\d+\.\S+"
)
"""What differs of a link from machine to machine: ifindex, a chosen address, limits of its veth, the release."""


def different(
    lines: tuple[str, ...], here: list[tuple[int, str]], there: list[tuple[int, str]], own: str = "(?!)"
) -> list[str]:
    """The lines whose exit status or output, without what matches *own*, is another."""
    return [
        f"$ {line}\nhere ({ours[0]}):\n{ours[1]}\nthere ({theirs[0]}):\n{theirs[1]}"
        for line, ours, theirs in zip(lines, here, there, strict=True)
        if (ours[0], re.sub(own, "", ours[1])) != (theirs[0], re.sub(own, "", theirs[1]))
    ]


@pytest.mark.parametrize("name", parts())
def test_tc_says_what_it_says_on_a_real_kernel(lab: Bench, there: dict[str, list[tuple[int, str]]], name: str) -> None:
    lines = parts()[name]
    here = said_here(lab, (*lines, *RESET))[: len(lines)]
    found = different(lines, here, there[name][: len(lines)])
    assert not found, "\n\n".join(found)


@pytest.mark.parametrize("name", parts("link_lines.txt"))
def test_ip_says_what_it_says_on_a_real_kernel(lab: Bench, there: dict[str, list[tuple[int, str]]], name: str) -> None:
    lines = (*LINK_DEVICES, *parts("link_lines.txt")[name])
    here = said_here(lab, (*lines, *LINK_RESET))[: len(lines)]
    found = different(lines, here, there[name][: len(lines)], _LINKS_OWN.pattern)
    assert not found, "\n\n".join(found)
