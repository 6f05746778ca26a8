# SPDX-License-Identifier: Apache-2.0
"""A whole lab: bring it up from a topology, describe it, and take it down in whatever state it is."""

from __future__ import annotations

import contextlib
import errno
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from asap2.errors import Asap2Error
from asap2.lab import cable, guest, machine, node
from asap2.lab.execute import run, start
from asap2.lab.layout import Layout, layout
from asap2.lab.links import remove_links
from asap2.lab.lock import Lock
from asap2.lab.namespaces import identity, kept_below
from asap2.lab.processes import end_all, inside
from asap2.lab.revive import revive
from asap2.lab.syscalls import MS_NODEV, MS_NOSUID, MS_PRIVATE, detach, mount
from asap2.lab.topology import Topology


class Lab:
    """The lab at *place*. *daemon* is the command that runs a node's daemon, for those who test with another."""

    def __init__(self, place: Layout | None = None, daemon: Sequence[str] | None = None) -> None:
        self.layout = place or layout()
        self.daemon = daemon
        self.patience = 5.0
        """Seconds to wait for another command's end."""

    @property
    def root(self) -> Path:
        """The directory below which everything is."""
        return self.layout.root

    def up(self, topology: Topology) -> None:
        """Bring the lab up. If that fails, nothing of it remains."""
        if lacking := machine.lacking():
            raise Asap2Error(lacking)
        with self._locked():
            if self.root.exists():
                raise Asap2Error(f"a lab is up already{self._summary()}; `asap2 lab down` takes it down")
            try:
                self._build(topology)
            except BaseException:
                self._take_down()
                raise

    def down(self) -> bool:
        """Take the lab down, even if it is incomplete or damaged. False if there was none."""
        with self._locked():
            if not self.root.exists():
                return False
            self._take_down()
            return True

    def describe(self) -> dict[str, Any] | None:
        """The lab's parts and their state, as plain data; None if there is no lab."""
        try:
            record: dict[str, Any] = json.loads(self.layout.record.read_text())
        except FileNotFoundError:
            if not self.root.exists():
                return None
            raise Asap2Error("a lab is half up; `asap2 lab down` takes it down") from None
        revive(self.root)
        for each in record["nodes"]:
            each["daemon"] = self._daemon_pid(each["name"])
            each["processes"] = self._processes(self.layout.node(each["name"]))
            for nic in each["nics"]:
                nic["vfs"] = {address: self._vfs(each["name"], address) for address in nic["netdevs"].values()}
        for each in record["guests"]:
            each["processes"] = self._processes(self.layout.guest(each["name"]))
        return record

    def _build(self, topology: Topology) -> None:
        self.root.mkdir(mode=0o700)
        mount("tmpfs", self.root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=700")
        mount("", self.root, flags=MS_PRIVATE)
        for its_guest in topology.guests:
            guest.make(self.layout, its_guest, node.redirect_library())
        for hypervisor in topology.nodes:
            node.make_silicon(self.layout, hypervisor)
        for joined in topology.cables:
            cable.connect(self.layout, *joined.ends)
        for switch in topology.switches:
            cable.join(self.layout, switch)
        with contextlib.ExitStack() as stack:
            daemons = []
            for hypervisor in topology.nodes:
                node.make(self.layout, hypervisor, [each for each in topology.guests if each.node == hypervisor.name])
                daemons.append(stack.enter_context(node.Daemon(self.layout, hypervisor, self.daemon)))
            for daemon in daemons:
                daemon.wait_ready()
        starting = [
            (name, start(self.layout.node(name) / "ns", ["systemctl", "start", "openvswitch-switch"]))
            for name in (hypervisor.name for hypervisor in topology.nodes if hypervisor.openvswitch)
        ]
        for hypervisor in topology.nodes:
            for nic in hypervisor.nics:
                node.configure(self.layout, hypervisor, nic, topology.guests)
        for its_guest in topology.guests:
            if its_guest.nic.vfs:
                guest.give_vf(self.layout, its_guest)
        for name, process in starting:
            output, _ = process.communicate()
            if process.returncode:
                raise Asap2Error(f"Open vSwitch does not start in {name}: {' '.join(output.split())}")
        self.layout.record.write_text(json.dumps(_record(topology), indent=1) + "\n")

    def _take_down(self) -> None:
        kept = list(kept_below(self.root))
        end_all({identity(path) for path in kept})
        remove_links(path for path in kept if path.name == "net")
        while True:
            try:
                detach(self.root)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                break
        self.root.rmdir()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Allow one command at a time to bring this lab up or take it down."""
        with Lock(self.root) as lock:
            deadline = time.monotonic() + self.patience
            while not lock.take():
                if time.monotonic() > deadline:
                    raise Asap2Error("another asap2 lab command is at work; wait until it has ended")
                time.sleep(0.01)
            yield

    def _summary(self) -> str:
        with contextlib.suppress(OSError, ValueError, KeyError):
            record = json.loads(self.layout.record.read_text())
            return f" ({', '.join(each['name'] for each in record['nodes'])})"
        return ", or half up"

    def _daemon_pid(self, name: str) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.layout.node(name) / "daemon.pid").read_text())
            if pid in inside([identity(self.layout.node(name) / "ns" / "net")]):
                return pid
        return None

    def _vfs(self, name: str, address: str) -> int | None:
        """How many VFs the PF at *address* has, as the node's sysfs says; None when that does not answer."""
        with contextlib.suppress(Asap2Error, ValueError):
            return int(run(self.layout.bundle(name), "cat", f"/sys/bus/pci/devices/{address}/sriov_numvfs"))
        return None

    def _processes(self, directory: Path) -> int:
        return len(list(inside([identity(path) for path in (directory / "ns").iterdir()])))


def _record(topology: Topology) -> dict[str, Any]:
    return {
        "since": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "nodes": [
            {
                "name": each.name,
                "nics": [
                    {
                        "name": nic.name,
                        "model": nic.model,
                        "netdevs": {nic.netdev(port): nic.pf_address(port) for port in range(nic.ports)},
                        "total_vfs": nic.total_vfs,
                    }
                    for nic in each.nics
                ],
            }
            for each in topology.nodes
        ],
        "cables": [
            *([f"{end.node}/{end.nic}/p{end.port}" for end in each.ends] for each in topology.cables),
            *([f"{end.node}/{end.nic}/p{end.port}", each.name] for each in topology.switches for end in each.ends),
        ],
        "guests": [
            {
                "name": each.name,
                "node": each.node,
                "vf": each.vf_netdev,
                "device": each.device,
                "mac": each.mac,
                "address": each.address,
            }
            for each in topology.guests
        ],
    }
