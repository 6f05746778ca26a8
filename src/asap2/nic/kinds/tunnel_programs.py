# SPDX-License-Identifier: Apache-2.0
"""The programs of ``tunnels.bpf.c`` in the kernel: their maps, and where each runs. All is pinned and outlives us."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asap2.nic.silicon import hooks, loader
from asap2.nic.silicon.hooks import Hook

OBJECT: Final = Path(__file__).with_name("tunnels.bpf.o")
_MAPS: Final = ("devices", "places", "arrivals", "turns", "sequences", "works")
_PROGRAMS: Final = ("tunnel_in", "tunnel_arrive", "tunnel_out")
_PER_CPU: Final = 2048
"""PER_CPU of the program."""
_MOST_CPUS: Final = 31
"""As many as skb->tc_index has numbers for."""
_U32: Final = struct.Struct("=I")
_DEVICE: Final = struct.Struct("=4s2sBBBBBBBBxxI16s16sI8s")
_PLACE: Final = struct.Struct("=2sBB4s16s")
_ANY: Final = 2
_BARE: Final = 3
_IS_ERSPAN, _IS_PLAIN = 2, 4

GENEVE, GRETAP, IP6GRETAP, IPIP, SIT, ERSPAN, IP6ERSPAN, GRE, BAREUDP = 1, 2, 3, 4, 5, 6, 7, 8, 9
"""enum tunnel_kind."""
_PROTOCOLS: Final = {IPIP: [socket.IPPROTO_IPIP], SIT: [socket.IPPROTO_IPV6, socket.IPPROTO_IPIP]}
"""The IP protocols of tunnels without a header of their own."""


class _Constants(ctypes.Structure):
    """``constants`` of the program."""

    _fields_ = [("cpus", ctypes.c_uint32)]


@dataclass(frozen=True, slots=True)
class Device:
    """What the programs know of a tunnel device. Addresses are as long as their IP version's, or empty; *tun_id* is
    None for a tunnel without one; one that *collects* is told its tunnel with each packet; *far* is the
    ifindex of the far end."""

    kind: int
    collects: bool = False
    tun_id: int | None = 0
    port: int = 0
    local: bytes = b""
    remote: bytes = b""
    ttl: int = 0
    tos: int = 0
    dont_fragment: bool = False
    far: int = 0
    protocol: int = 0
    """The IP protocol of what is in a tunnel whose header does not say; 0: all that such devices can carry."""
    erspan: tuple[int, bytes] = (0, b"")
    """The version of a device of ERSPAN that does not collect, and what its metadata says: the index in network byte
    order, or of version 2 eight octets of which hardware id and direction count."""

    def packed(self) -> bytes:
        """``struct device``."""
        version6 = len(self.remote) == 16
        return _DEVICE.pack(
            (self.tun_id or 0).to_bytes(4, "big"),
            self.port.to_bytes(2, "big"),
            self.kind,
            self.collects,
            version6,
            self.tun_id is not None,
            self.ttl,
            self.tos,
            self.dont_fragment,
            self.protocol,
            self.far,
            self.local.rjust(16, b"\0"),
            self.remote.rjust(16, b"\0"),
            self.erspan[0],
            self.erspan[1].ljust(8, b"\0"),
        )

    def place(self) -> bytes:
        """``struct place``: which packets are for it."""
        if self.kind in _PROTOCOLS:
            return self._bare_places()[0]
        port = self.port.to_bytes(2, "big")
        if self.collects:
            version6 = self.kind in (IP6GRETAP, IP6ERSPAN)
            return _PLACE.pack(port, version6 | self._inside, _ANY, bytes(4), bytes(16))
        keyed = self.tun_id is not None
        tun_id = (self.tun_id or 0).to_bytes(4, "big")
        version6 = len(self.remote) == 16
        return _PLACE.pack(port, version6 | self._inside, keyed, tun_id, self.remote.rjust(16, b"\0"))

    @property
    def _inside(self) -> int:
        return {ERSPAN: _IS_ERSPAN, IP6ERSPAN: _IS_ERSPAN, GRE: _IS_PLAIN, BAREUDP: _IS_PLAIN}.get(self.kind, 0)

    def places(self) -> list[bytes]:
        """All of them."""
        return self._bare_places() if self.kind in _PROTOCOLS else [self.place()]

    def _bare_places(self) -> list[bytes]:
        protocols = [self.protocol] if self.protocol else _PROTOCOLS[self.kind]
        remote = self.remote.rjust(16, b"\0")
        return [_PLACE.pack(bytes(2), 0, _BARE, protocol.to_bytes(4, "big"), remote) for protocol in protocols]


class TunnelPrograms:
    """The programs pinned in *directory* of a bpffs, which is made when it is not there. They serve the tunnel devices
    of one network namespace, which their callers open as *netns*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        if not directory.exists():
            cpus = min(loader.possible_cpus(), _MOST_CPUS)
            sizes: dict[str, int | None] = dict.fromkeys(_MAPS)
            part = directory.with_name(f"{directory.name}-part")
            part.mkdir(exist_ok=True)
            loader.unpin_all(part)
            loader.load(OBJECT, part, sizes | {"arrivals": cpus * _PER_CPU}, _PROGRAMS, _Constants(cpus))
            part.rename(directory)
        self._devices, self._places = (loader.Map(loader.pinned(directory / name), name) for name in _MAPS[:2])
        self.listening = {int(path.name.rpartition("-")[2]) for path in directory.glob("link-tunnel_in-*")}
        """The devices at which packets are taken out of tunnels."""

    def set(self, ifindex: int, device: Device) -> None:
        """The device *ifindex* is such a one."""
        self._devices.update(_U32.pack(ifindex), device.packed())
        first, *others = device.places()
        self._places.update(first, _U32.pack(ifindex))
        for place in others:  # what no device of another kind is there for
            if self._places.lookup(place) is None:
                self._places.update(place, _U32.pack(ifindex))

    def run(self, ifindex: int, netns: int) -> None:
        """Let packets through the tunnel device *ifindex*. OSError."""
        self._attach("tunnel_arrive", ifindex, "ingress", netns, first=True)
        self._attach("tunnel_out", ifindex, "egress", netns, first=False)

    def forget(self, ifindex: int, device: Device) -> None:
        """Undo :meth:`set` and :meth:`run`."""
        with contextlib.suppress(OSError):
            self._devices.delete(_U32.pack(ifindex))
        self.forget_places(ifindex, device)
        for program in ("tunnel_arrive", "tunnel_out"):
            self._path(program, ifindex).unlink(missing_ok=True)

    def forget_places(self, ifindex: int, device: Device) -> None:
        """No packets are for it any more."""
        for place in device.places():
            if self._places.lookup(place) == _U32.pack(ifindex):
                with contextlib.suppress(OSError):
                    self._places.delete(place)

    def listen(self, there: Set[int], netns: int) -> None:
        """Take packets out of tunnels where they come in by any of the devices that are *there*."""
        for ifindex in self.listening - there:
            self._path("tunnel_in", ifindex).unlink(missing_ok=True)
        self.listening &= there
        for ifindex in there - self.listening:
            with contextlib.suppress(OSError):  # it may be gone by now
                self._attach("tunnel_in", ifindex, "ingress", netns, first=False)
                self.listening.add(ifindex)

    def deafen(self) -> None:
        """Undo :meth:`listen`."""
        for ifindex in self.listening:
            self._path("tunnel_in", ifindex).unlink(missing_ok=True)
        self.listening.clear()

    def unload(self) -> None:
        """Remove all of it; this is of no use any more."""
        for loaded in (self._devices, self._places):
            os.close(loaded.fd)
        loader.unpin_all(self._directory)
        self._directory.rmdir()

    def _attach(self, program: str, ifindex: int, hook: Hook, netns: int, *, first: bool) -> None:
        path = self._path(program, ifindex)
        path.unlink(missing_ok=True)
        fd = loader.pinned(self._directory / program)
        try:
            hooks.attach(fd, ifindex, hook, netns, path, first=first)
        finally:
            os.close(fd)

    def _path(self, program: str, ifindex: int) -> Path:
        return self._directory / f"link-{program}-{ifindex}"
