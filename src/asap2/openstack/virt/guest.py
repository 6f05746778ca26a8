# SPDX-License-Identifier: Apache-2.0
"""Guests of a compute node: a process in network and UTS namespaces of its own, in place of a virtual machine.

A guest outlives the service that started it, and is found again by its record, a file in nova's instances directory.
Its network namespace is named in the node's /run/netns, and both are kept in a directory that the lab shares with its
nodes, so that ``asap2 exec NAME`` finds it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from asap2.openstack.plan import SERVERS
from asap2.openstack.virt.pci import PciError, Vf, run

START_SECONDS = 10.0
KINDS = ("net", "uts")
"""The namespaces that a guest has for itself."""
NAME_MAX = 32
"""Characters in a guest's name, as the lab's topology has it."""

BOOT = """
echo "$2" > /proc/sys/kernel/hostname
[ ! -d /proc/sys/net/ipv6 ] || echo 1 > /proc/sys/net/ipv6/conf/default/addr_gen_mode
ip link set lo up
echo $$ > "$1.new" && mv "$1.new" "$1"
exec sleep infinity
"""
"""What a guest does when it starts: addr_gen_mode none, as all guests of the lab, so that a quiet network is quiet."""


@dataclass(slots=True)
class Interface:
    """A network interface of a guest: the VF at the PCI address ``slot`` is ``device`` in the guest."""

    slot: str
    device: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """An interface that a guest is to have: neutron's port, the VF, and what cloud-init would set in the guest."""

    port: str
    slot: str
    mac: str
    vlan: int = 0
    mtu: int | None = None
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()


@dataclass(slots=True)
class Guest:
    """A guest as its record has it; ``pid`` is 0 while it does not run, ``started`` is the process's start time in
    clock ticks, by which it is known from a later process of the same id (proc(5))."""

    uuid: str
    instance: str
    name: str
    directory: Path
    pid: int = 0
    started: int = 0
    interfaces: dict[str, Interface] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return bool(self.pid) and start_time(self.pid) == self.started

    def start(self) -> None:
        """Start the process in new namespaces; PciError when it does not start."""
        place = self.directory / "pid"
        place.unlink(missing_ok=True)
        separate = ["unshare", "--net", "--uts"]
        shell = ["/bin/sh", "-ec", BOOT, "guest", str(place), self.name]
        with (self.directory / "console.log").open("ab") as console:
            words = ["setsid", "--fork", *separate, *shell]
            subprocess.run(words, stdin=subprocess.DEVNULL, stdout=console, stderr=console, check=True, cwd="/")
        deadline = time.monotonic() + START_SECONDS
        while not place.exists():
            if time.monotonic() > deadline:
                said = (self.directory / "console.log").read_text(errors="replace").split()
                raise PciError(f"the guest {self.name} did not start: {' '.join(said[-40:]) or 'it said nothing'}")
            time.sleep(0.02)
        self.pid = int(place.read_text())
        self.started = start_time(self.pid) or 0
        self.save()
        run("ip", "netns", "attach", self.name, str(self.pid))
        self._show()

    def stop(self) -> None:
        """Kill the process and take back every VF; what is gone already is passed over.

        PciError when a VF does not come back, after all else has been done; the guest still has it then.
        """
        if self.running:
            _end(self.pid)
        self.pid = 0
        self.save()
        complaints = []
        for port in list(self.interfaces):
            try:
                self.take(port)
            except PciError as error:
                complaints.append(str(error))
        if complaints:
            raise PciError("; ".join(complaints))
        if Path("/run/netns", self.name).exists():
            run("ip", "netns", "delete", self.name)
        self._hide()

    def give(self, wanted: Wanted) -> None:
        """Hand the guest a VF, with its addresses, as the next ethN."""
        vf = Vf(wanted.slot)
        taken = {each.device for each in self.interfaces.values()}
        device = next(name for number in range(len(taken) + 1) if (name := f"eth{number}") not in taken)
        self.interfaces[wanted.port] = Interface(wanted.slot, device)
        self.save()
        netdev = vf.claim(wanted.mac, wanted.vlan)
        inside = ["ip", "-n", self.name]
        run("ip", "link", "set", "dev", netdev, "netns", self.name)
        run(*inside, "link", "set", "dev", netdev, "name", device, *(["mtu", str(wanted.mtu)] if wanted.mtu else []))
        for address in wanted.addresses:
            run(*inside, "address", "add", address, "dev", device)
        run(*inside, "link", "set", "dev", device, "up")
        for gateway in wanted.gateways:
            run(*inside, "route", "add", "default", "via", gateway, "dev", device)

    def take(self, port: str) -> None:
        """Take the VF of *port* back, if the guest has it."""
        interface = self.interfaces.get(port)
        if interface:
            Vf(interface.slot).release()
            del self.interfaces[port]
            self.save()

    def save(self) -> None:
        """Write the record."""
        record = {key: value for key, value in asdict(self).items() if key != "directory"}
        new = self.directory / "guest.json.new"
        new.write_text(json.dumps(record, indent=1) + "\n")
        new.replace(self.directory / "guest.json")

    def forget(self) -> None:
        """Remove the record and all of the guest's files."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _show(self) -> None:
        """Keep the namespaces where the lab sees them, when this is one."""
        if SERVERS.is_dir():
            for kind in KINDS:
                place = SERVERS / self.name / "ns" / kind
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
                run("mount", "--bind", f"/proc/{self.pid}/ns/{kind}", str(place))

    def _hide(self) -> None:
        for kind in KINDS:
            place = SERVERS / self.name / "ns" / kind
            if place.exists() and place.stat().st_dev != SERVERS.stat().st_dev:
                run("umount", str(place))
        shutil.rmtree(SERVERS / self.name, ignore_errors=True)


class Guests:
    """All guests of a compute node, whose records are below *directory*."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def all(self) -> list[Guest]:
        """Every guest that has a record."""
        found = [self.find(path.parent.name) for path in sorted(self.directory.glob("*/guest.json"))]
        return [guest for guest in found if guest]

    def find(self, uuid: str) -> Guest | None:
        """The guest with nova's *uuid*."""
        directory = self.directory / uuid
        try:
            record = json.loads((directory / "guest.json").read_text())
        except FileNotFoundError:
            return None
        record["interfaces"] = {port: Interface(**each) for port, each in record["interfaces"].items()}
        return Guest(directory=directory, **record)

    def new(self, uuid: str, instance: str, hostname: str) -> Guest:
        """A guest that does not run yet, named after its *hostname*, with a part of *uuid* where that is taken."""
        directory = self.directory / uuid
        directory.mkdir(parents=True, exist_ok=True)
        taken = {guest.name for guest in self.all()} | set(_listed(SERVERS)) | set(_listed(Path("/run/netns")))
        guest = Guest(uuid, instance, free_name(hostname, uuid, taken), directory)
        guest.save()
        return guest


def free_name(hostname: str, uuid: str, taken: Sequence[str] | set[str]) -> str:
    """*hostname* as a name that the lab accepts, or that with the first part of *uuid* when it is among *taken*."""
    name = re.sub("[^a-z0-9]+", "-", hostname.lower()).strip("-") or "server"
    short = name[:NAME_MAX].strip("-")
    return short if short not in taken else f"{name[: NAME_MAX - 9].strip('-')}-{uuid[:8]}"


def start_time(pid: int) -> int | None:
    """When process *pid* started, in clock ticks after boot; None when there is none or it is a zombie (proc(5))."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else int(fields[18])


def _listed(directory: Path) -> list[str]:
    return os.listdir(directory) if directory.is_dir() else []


def _end(pid: int) -> None:
    """Kill process *pid* and all others in its network namespace, and wait until they are gone."""
    try:
        namespace = os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return
    deadline = time.monotonic() + START_SECONDS
    while alive := [each for each in os.listdir("/proc") if each.isdecimal() and _is_in(each, namespace)]:
        if time.monotonic() > deadline:
            raise PciError(f"processes of the guest do not end: {', '.join(alive)}")
        for each in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(each), signal.SIGKILL)
        time.sleep(0.02)


def _is_in(pid: str, namespace: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/net") == namespace
    except OSError:
        return False
