# SPDX-License-Identifier: Apache-2.0
"""A lab of many nodes with OVN, two guests each, all in one logical switch: how long it takes to come up, whether each
guest reaches each other, and how much memory it has.

``python -m tests.ovn.many [NODES]`` prints that for 16 nodes, or as many as given.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from asap2.lab.namespaces import identity, kept_below
from asap2.lab.processes import inside
from asap2.ovn.programs import Chassis, plug, start_central
from tests.system.offload.labs import Bench

GUESTS = 2
"""Of each node."""
CONNECTIONS, RULES = 4096, 4096
"""Room of each node and NIC: small, as is what they do."""
UNDERLAY, OVERLAY = "10.57.255", "10.1.0"


def topology(count: int) -> str:
    """*count* nodes on a switch."""
    parts = []
    for node in range(1, count + 1):
        parts.append(f'[[node]]\nname = "hv{node}"\nconnections = {CONNECTIONS}\n[[node.nic]]\nrules = {RULES}\n')
        parts.append(f'total_vfs = {GUESTS}\nvfs = {GUESTS}\nmode = "switchdev"\n')
        for vf in range(GUESTS):
            number = GUESTS * (node - 1) + vf + 1
            parts.append(f'[[guest]]\nname = "vm{number}"\nnode = "hv{node}"\nvf = {vf}\nmac = "{mac(number)}"\n')
            parts.append(f'address = "{OVERLAY}.{number}/24"\n')
    ends = ", ".join(f'"hv{node}/nic0"' for node in range(1, count + 1))
    return "".join([*parts, f'[[switch]]\nname = "tor"\nends = [{ends}]\n'])


def mac(number: int) -> str:
    """Of guest *number*."""
    return f"fa:16:3e:00:00:{number:02x}"


@dataclass
class Many:
    """The lab, and what it took."""

    bench: Bench
    count: int
    seconds: dict[str, float] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=lambda: {"no neighbour": 0, "no answer": 0})
    """First pings that were not answered: Linux gave up to ask for the neighbour (after three seconds), or not."""

    @classmethod
    @contextlib.contextmanager
    def running(cls, count: int) -> Iterator[Many]:
        """*count* nodes with OVN, taken down at the end."""
        began = time.monotonic()
        with Bench.running(topology(count)) as bench:
            made = cls(bench, count)
            made.seconds["lab"] = time.monotonic() - began
            made._start()
            made.seconds["OVN"] = time.monotonic() - began - made.seconds["lab"]
            yield made

    @property
    def guests(self) -> list[int]:
        """Their numbers."""
        return list(range(1, GUESTS * self.count + 1))

    def _start(self) -> None:
        lines = {}
        for node in range(1, self.count + 1):
            address = f"{UNDERLAY}.{node}"
            chassis = Chassis(f"hv{node}", f"{UNDERLAY}.1", address)
            plugs = (plug(f"eth{vf}", f"vm{GUESTS * (node - 1) + vf + 1}") for vf in range(GUESTS))
            lines[f"hv{node}"] = [
                "ovs-vsctl set Open_vSwitch . other_config:hw-offload=true",
                "systemctl restart openvswitch-switch",
                "ovs-vsctl add-br br-ex -- add-port br-ex enp3s0f0",
                f"ip link set enp3s0f0 mtu 1600 up && ip address add {address}/24 dev br-ex",
                "ip link set br-ex mtu 1600 up",
                *(start_central() if node == 1 else ()),
                *chassis.start(),
                "ovs-vsctl --may-exist add-br br-int -- set Bridge br-int fail-mode=secure",
                *(line for each in plugs for line in each),
            ]
        self._together({where: " && ".join(commands) for where, commands in lines.items()})
        ports = (f"lsp-add sw0 vm{n} -- lsp-set-addresses vm{n} '{mac(n)} {OVERLAY}.{n}'" for n in self.guests)
        self.bench.ok("hv1", f"ovn-nbctl ls-add sw0 -- {' -- '.join(ports)}")
        self.bench.ok("hv1", "ovn-nbctl --timeout=300 wait-until Logical_Switch_Port vm1 up=true")
        for number in self.guests:
            self.bench.ok("hv1", f"ovn-nbctl --timeout=300 wait-until Logical_Switch_Port vm{number} up=true")
        self.bench.ok("hv1", "ovn-nbctl --timeout=300 --wait=hv sync")

    def _together(self, commands: dict[str, str]) -> dict[str, str]:
        running = {where: self.bench.start(where, "bash", "-c", command) for where, command in commands.items()}
        outputs = {}
        for where, process in running.items():
            output, errors = process.communicate()
            assert process.returncode == 0, f"{where}: {output}{errors}"
            outputs[where] = output
        return outputs

    def ping_all(self) -> int:
        """Each guest pings each other, all guests at once; the number of pairs that could.

        A busy machine may answer later than Linux asks for a neighbour, so a second attempt counts too.
        """
        began = time.monotonic()
        addresses = " ".join(f"{OVERLAY}.{number}" for number in self.guests)
        why = "case $said in *Unreachable*) echo no neighbour;; *) echo no answer;; esac"
        attempts = f"said=$(ping -c 1 -W 30 $to 2>&1) || {{ {why}; ping -q -c 9 -w 180 $to >/dev/null; }}"
        loop = f"for to in {addresses}; do {{ {attempts}; }} && echo reached $to; done; true"
        outputs = self._together({f"vm{number}": loop for number in self.guests})
        self.seconds["pings"] = time.monotonic() - began
        for reason in self.lost:
            self.lost[reason] = sum(output.count(reason) for output in outputs.values())
        return sum(len(re.findall("reached", output)) for output in outputs.values())

    def offloaded(self) -> int:
        """Flows in hardware, of all nodes."""
        counted = "ovs-appctl dpctl/dump-flows type=offloaded | wc -l"
        return sum(map(int, self._together({f"hv{n}": counted for n in range(1, self.count + 1)}).values()))

    def lost_upcalls(self) -> int:
        """Packets for Open vSwitch's user space that found no room there, of all nodes."""
        shown = self._together(dict.fromkeys((f"hv{n}" for n in range(1, self.count + 1)), "ovs-appctl dpctl/show"))
        return sum(int(number) for output in shown.values() for number in re.findall(r"lost:(\d+)", output))

    def memory(self) -> dict[str, int]:
        """Bytes of all processes of the lab, by program (what they share is divided among them), and of BPF maps."""
        found: dict[str, int] = {}
        maps: dict[str, int] = {}
        for pid in inside({identity(path) for path in kept_below(self.bench.root)}):
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                share = re.search(r"Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
                found[name] = found.get(name, 0) + (int(share[1]) << 10 if share else 0)
                for one in Path(f"/proc/{pid}/fdinfo").iterdir():
                    text = one.read_text()
                    number, size = re.search(r"map_id:\t(\d+)", text), re.search(r"memlock:\t(\d+)", text)
                    if number and size:
                        maps[number[1]] = int(size[1])
        return found | {"BPF maps": sum(maps.values())}


def main() -> None:
    """Print what it takes."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    with Many.running(count) as many:
        reached, wanted = many.ping_all(), len(many.guests) ** 2
        memory = many.memory()
        print(", ".join(f"{what} {seconds:.1f} s" for what, seconds in many.seconds.items()))
        print(f"{reached} of {wanted} pings answered; {many.offloaded()} flows in hardware")
        told = ", ".join(f"{count} {why}" for why, count in many.lost.items())
        print(f"first pings lost: {told}; {many.lost_upcalls()} packets for user space lost")
        for name, size in sorted(memory.items(), key=lambda item: -item[1]):
            print(f"{size / (1 << 20):8.0f} MiB  {name}")
        print(f"{sum(memory.values()) / (1 << 20):8.0f} MiB  together, {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
