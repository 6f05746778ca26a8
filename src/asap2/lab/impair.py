# SPDX-License-Identifier: Apache-2.0
"""Making a cable bad, and good again, while the lab runs.

Packets are changed where they come in, at each end of the cable: a program of ``impair.bpf.c`` runs there first. It
loses packets by itself. For a rate it sends them through a token bucket filter (tc-tbf(8)) on a pair of devices of the
end's own, as a NIC's limits do; for a delay through a TAP device to the processes of ``delay.c``. A good cable has
none of all that.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asap2.errors import Asap2Error
from asap2.lab.cable import WIRE_MTU
from asap2.lab.child import Child, interrupts_held
from asap2.lab.enter import enter
from asap2.lab.execute import ip
from asap2.lab.impairment import Impairment
from asap2.lab.namespaces import identity
from asap2.lab.processes import inside
from asap2.namespaces import in_netns
from asap2.nic.silicon import hooks, loader
from asap2.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount

OBJECT = Path(__file__).with_name("impair.bpf.o")
DELAY = Path(__file__).with_name("delay")
LEAST_BURST = 32_768
"""Octets that a shaper sends at once, or what it sends in 2 ms."""
_BURSTS_OF_SECOND = 500
_QUEUE_MS = 50
"""How long a packet may wait for others: the shaper drops what comes on top."""
_PROGRAMS = ("impair", "shaped", "delayed")


class _Cable(ctypes.Structure):
    """``struct cable`` of the program."""

    loss: int
    end: int
    shaper: int
    delay: int
    received: int
    lost: int
    _fields_ = [
        ("loss", ctypes.c_uint64),
        ("end", ctypes.c_uint32),
        ("shaper", ctypes.c_uint32),
        ("delay", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
        ("received", ctypes.c_uint64),
        ("lost", ctypes.c_uint64),
    ]


class _Settings(ctypes.Structure):
    """``struct settings`` of the process that delays."""

    dropped: int
    _fields_ = [("delay", ctypes.c_uint64), ("jitter", ctypes.c_uint64), ("dropped", ctypes.c_uint64)]


@dataclass(frozen=True, slots=True)
class Counted:
    """What has become of the packets that came in: how many, how many of them were lost, how many the delay had no
    room for."""

    received: int
    lost: int
    dropped: int


class End:
    """An end of a cable: the *device* in the namespace kept at *netns*. What belongs to it is in *directory*; programs
    are pinned in *pins* of a bpffs."""

    def __init__(self, netns: Path, device: str, directory: Path, pins: Path) -> None:
        self._netns = netns
        self._device = device
        self._directory = directory
        self._pins = pins
        self._shaper, self._shaped, self._delay = (f"{name}-{device}" for name in ("shaper", "shaped", "delay"))

    def set(self, wanted: Impairment) -> None:
        """Have what comes in be impaired as *wanted* from now on."""
        if not wanted:
            self.clear()
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        new = not self._pins.exists()
        if new:
            self._load()
        with self._map() as cable:
            record = _read(cable)
            record.loss = wanted.loss * (1 << 32) // 10**6
            record.end = self._index(self._device)
            record.shaper = self._shape(wanted.rate) if wanted.rate else 0
            record.delay = self._hold(wanted.delay, wanted.jitter) if wanted.delay else 0
            cable.update(bytes(4), bytes(record))
        if new:
            self._run("impair", record.end)
        if not record.shaper:
            self._unshape()
        if not record.delay:
            self._let_go()

    def clear(self) -> None:
        """Have nothing of ours be there any more; what is delayed at the moment is lost."""
        if self._pins.exists():
            self._stop("impair")
        self._unshape()
        self._let_go()
        if self._pins.exists():
            loader.unpin_all(self._pins)
            self._pins.rmdir()

    def counted(self) -> Counted | None:
        """What has become of packets since the end was impaired; None when it is not."""
        if not self._pins.exists():
            return None
        with self._map() as cable:
            record = _read(cable)
        dropped = 0
        with contextlib.suppress(FileNotFoundError):
            dropped = _Settings.from_buffer_copy(self._settings.read_bytes()).dropped
        return Counted(record.received, record.lost, dropped)

    # ---- programs

    def _load(self) -> None:
        part = self._pins.with_name(f"{self._pins.name}-part")
        part.mkdir(exist_ok=True)
        loader.unpin_all(part)
        loader.load(OBJECT, part, {"cable": None}, _PROGRAMS)
        part.rename(self._pins)

    @contextlib.contextmanager
    def _map(self) -> Iterator[loader.Map]:
        descriptor = loader.pinned(self._pins / "cable")
        try:
            yield loader.Map(descriptor, "cable")
        finally:
            os.close(descriptor)

    def _run(self, program: str, ifindex: int) -> None:
        """Run it first of all at the device's ingress."""
        descriptor, netns = loader.pinned(self._pins / program), os.open(self._netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            hooks.attach(descriptor, ifindex, "ingress", netns, self._pins / f"link-{program}")
        finally:
            os.close(descriptor)
            os.close(netns)

    def _stop(self, program: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            hooks.detach(self._pins / f"link-{program}")

    def _index(self, device: str) -> int:
        """The ifindex of a device in the namespace, 0 when there is none."""
        netns = os.open(self._netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return in_netns(netns, lambda: _index_of(device))
        finally:
            os.close(netns)

    # ---- the rate

    def _shape(self, rate: int) -> int:
        """Have a shaper of so many bits a second; the ifindex of the device that leads to it."""
        if not self._index(self._shaper):
            pair = f"link add name {self._shaper} mtu {WIRE_MTU} type veth peer name {self._shaped} mtu {WIRE_MTU}"
            ip(self._netns, pair, f"link set dev {self._shaper} up", f"link set dev {self._shaped} up")
            self._run("shaped", self._index(self._shaped))
        burst = max(LEAST_BURST, rate // 8 // _BURSTS_OF_SECOND)
        options = f"rate {rate}bit burst {burst} latency {_QUEUE_MS}ms"
        command = f"tc qdisc replace dev {self._shaper} root tbf {options}"
        done = subprocess.run(
            ["nsenter", f"--net={self._netns}", *command.split()], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Asap2Error(f"a cable cannot have a rate here: `{command}` failed: {' '.join(done.stderr.split())}")
        return self._index(self._shaper)

    def _unshape(self) -> None:
        if self._index(self._shaper):
            ip(self._netns, f"link delete dev {self._shaper}")

    # ---- the delay

    @property
    def _settings(self) -> Path:
        return self._directory / "delay"

    def _hold(self, delay: int, jitter: int) -> int:
        """Have a process hold packets back for so many nanoseconds; the ifindex of the device that leads to it."""
        with self._settings.open("r+b" if self._settings.exists() else "w+b") as file:
            file.write(bytes(_Settings(delay, jitter))[: _Settings.dropped.offset])  # type: ignore[attr-defined]
            file.truncate(ctypes.sizeof(_Settings))
        if index := self._index(self._delay):
            return index
        index = self._start()
        self._run("delayed", index)
        return index

    def _start(self) -> int:
        """Start the process that delays, no child of this one; the ifindex of its device."""
        if not DELAY.exists():
            raise Asap2Error(f"{DELAY} is not there; `make setup` builds it")
        read_end, write_end = os.pipe()

        def start() -> None:
            with interrupts_held(), (self._directory / "delay.log").open("wb") as log:
                subprocess.Popen(
                    [str(DELAY), self._delay, str(self._settings)],
                    stdin=subprocess.DEVNULL,
                    stdout=write_end,
                    stderr=log,
                    cwd="/",
                    start_new_session=True,
                    preexec_fn=lambda: enter(self._netns.parent, ["net"]),
                )

        Child(start).result()
        os.close(write_end)
        with os.fdopen(read_end) as told:
            line = told.readline()
        if not line:
            why = (self._directory / "delay.log").read_text().strip()
            raise Asap2Error(f"a cable cannot have a delay here: {why}")
        return int(line)

    def _let_go(self) -> None:
        """Delete the device of the processes that delay: they end then."""
        if not self._index(self._delay):
            return
        handles = []
        for pid in inside([identity(self._netns)]):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:2] == [self._delay.encode()]:
                    handles.append(os.pidfd_open(pid))
        ip(self._netns, f"link delete dev {self._delay}")
        for handle in handles:
            select.select([handle], [], [])
            os.close(handle)


def _read(cable: loader.Map) -> _Cable:
    return _Cable.from_buffer_copy(cable.lookup(bytes(4)) or bytes(ctypes.sizeof(_Cable)))


def _index_of(device: str) -> int:
    try:
        return socket.if_nametoindex(device)
    except OSError:
        return 0


def make_pins(directory: Path) -> None:
    """Have a bpffs at *directory*."""
    if not directory.exists():
        directory.mkdir(parents=True)
        mount("bpffs", directory, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=700")
