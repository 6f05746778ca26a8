# SPDX-License-Identifier: Apache-2.0
"""A whole lab: bring it up from a topology, describe it, and take it down in whatever state it is."""

from __future__ import annotations

import contextlib
import errno
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from asap2.errors import Asap2Error
from asap2.extras import need
from asap2.lab import cable, guest, machine, node
from asap2.lab.cables import Cable, cables, find
from asap2.lab.child import interrupts_held
from asap2.lab.description import describe, record
from asap2.lab.execute import run, start
from asap2.lab.impairment import Impairment
from asap2.lab.layout import DEFAULT_NAME, MOUNT_SOURCE, Layout, layout
from asap2.lab.links import remove_links
from asap2.lab.lock import Lock
from asap2.lab.namespaces import identity, kept_below
from asap2.lab.processes import end_all
from asap2.lab.revive import revive
from asap2.lab.topology import Topology
from asap2.syscalls import MS_NODEV, MS_NOSUID, MS_PRIVATE, detach, mount


class Lab:
    """The lab at *place*. *daemon* is the command that runs a node's daemon, for those who test with another. *tell* is
    given what is being done while the lab comes up, and nothing when it is up."""

    def __init__(
        self,
        place: Layout | None = None,
        daemon: Sequence[str] | None = None,
        tell: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.layout = place or layout()
        self.daemon = daemon
        self.tell = tell
        self.patience = 5.0
        """Seconds to wait for another command's end."""

    @property
    def root(self) -> Path:
        """The directory below which everything is."""
        return self.layout.root

    def up(self, topology: Topology) -> None:
        """Bring the lab up. If that fails, nothing of it remains."""
        need("lab")
        if lacking := machine.lacking():
            raise Asap2Error(lacking)
        with self._locked():
            if self.root.exists():
                raise Asap2Error(f"a lab is up already{self._summary()}; {self._down} takes it down")
            try:
                self._build(topology)
            except BaseException:
                with interrupts_held():  # a second Ctrl-C would leave half of it
                    self.tell("taking down what was made")
                    self._take_down()
                raise

    def down(self) -> bool:
        """Take the lab down, even if it is incomplete or damaged. False if there was none."""
        with self._locked():
            if not self.root.exists():
                return False
            self._take_down()
            return True

    def impair(self, one: str, other: str | None, change: Callable[[Impairment], Impairment]) -> dict[str, Any]:
        """Change how bad a cable is (:func:`asap2.lab.cables.find`); what it is then, as plain data."""
        with self._locked():
            found = find(cables(self.layout), one, other)
            found.set(change(found.impairment()))
            return found.as_data()

    def describe(self) -> dict[str, Any] | None:
        """The lab's parts and their state, as plain data; None if there is no lab."""
        if not self.root.exists():
            return None
        revive(self.root)
        return describe(self.layout)

    def _build(self, topology: Topology) -> None:
        self.root.mkdir(mode=0o700)
        mount(MOUNT_SOURCE, self.root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=700")
        mount("", self.root, flags=MS_PRIVATE)
        self.tell("making guests and cables")
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
                self.tell(f"making {hypervisor.name}")
                node.make(self.layout, hypervisor, [each for each in topology.guests if each.node == hypervisor.name])
                daemons.append(stack.enter_context(node.Daemon(self.layout, hypervisor, self.daemon)))
            for daemon in daemons:
                self.tell(f"waiting for the NICs of {daemon.name}")
                daemon.wait_ready()
        starting = [
            (name, start(self.layout.node(name) / "ns", ["systemctl", "start", "openvswitch-switch"]))
            for name in (hypervisor.name for hypervisor in topology.nodes if hypervisor.openvswitch)
        ]
        for hypervisor in topology.nodes:
            for nic in hypervisor.nics:
                self.tell(f"configuring {nic.name} of {hypervisor.name}")
                node.configure(self.layout, hypervisor, nic, topology.guests)
        for its_guest in topology.guests:
            if its_guest.nic.vfs:
                guest.give_vf(self.layout, its_guest)
        for name, process in starting:
            self.tell(f"waiting for Open vSwitch of {name}")
            output, _ = process.communicate()
            if process.returncode:
                raise Asap2Error(f"Open vSwitch does not start in {name}: {' '.join(output.split())}")
        for hypervisor in topology.nodes:
            for command in hypervisor.setup:
                self.tell(f"{hypervisor.name}: {command}")
                run(self.layout.node(hypervisor.name) / "ns", "sh", "-ec", command)
        about = record(topology)
        self._impair(about, topology)
        self.layout.record.write_text(json.dumps(about, indent=1) + "\n")
        self.tell("")

    def _impair(self, about: dict[str, Any], topology: Topology) -> None:
        """Make the cables bad that are to be: after the NICs' programs, before which a cable's come."""
        for number, joined in enumerate(topology.cables):
            if joined.impairment:
                self.tell(f"making a cable bad: {joined.impairment}")
                Cable(self.layout, about, number).set(joined.impairment)

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

    @property
    def _down(self) -> str:
        name = self.layout.name
        return "`asap2 lab down`" if name == DEFAULT_NAME else f"`asap2 --lab {name} lab down`"

    def _summary(self) -> str:
        with contextlib.suppress(OSError, ValueError, KeyError):
            there = json.loads(self.layout.record.read_text())
            return f" ({', '.join(each['name'] for each in there['nodes'])})"
        return ", or half up"
