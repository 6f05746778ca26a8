# SPDX-License-Identifier: Apache-2.0
"""The first and only program of the user-mode kernel: does the cases of a file, writes what happened to another.

It runs as process 1 on the host's root file system, mounted read-only, with the standard library alone::

    /usr/bin/python3 -S -E -B guest.py DIRECTORY

DIRECTORY, of the host, has ``cases`` and gets ``results``: streams of pickles, of plain tuples. A case is a list of
steps, ``("ask", type, flags, payload)`` for a netlink request, ``("send", port, frame, mss)`` for a frame that comes in
by a port, a TCP super-packet of segments of *mss* bytes unless that is 0, and ``("run", command)`` for a shell command.
Its result is ``("case", answers, captures)``: for each request the messages ``(type, flags, payload)`` of its answer,
for each command one of its exit status, 0 and what it wrote, and ``(ifindex, tag or None, frame)`` of each frame that
came out, in order. Or it is ``("failed", why)``.

Each port is a veth pair: ``n`` has the filters, ``f`` is its far end, where frames are sent and come out. What passes
the filters of ``n`` comes out of the bond ``b`` above it, whatever its protocol: a bond takes every frame before the
network stack does. Frames are captured with their tag, which is not in the frame but beside it.

Nothing sleeps or guesses when a packet is done: a marker is sent through a port of its own and over as many queues as a
packet takes; the kernel has one CPU, so the queues are in order, and when the marker is out, all before it are. What
comes out of a tunnel waits in one queue more: a second marker follows the first.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import pickle
import select
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PORTS = 4
NEAR, FAR, BOND = 10, 20, 30
"""Interface index of port 0's ends, and of what is above it."""
MARKER_IN, MARKER_RELAY, MARKER_OUT, MARKER_END = 16, 17, 18, 40
"""The marker's way; what comes out anywhere has an index of FAR or more."""
MODULES = (
    *("veth", "bonding", "vxlan", "sch_ingress", "cls_flower", "cls_matchall", "cls_basic"),
    *("act_gact", "act_mirred", "act_vlan", "act_skbedit", "act_pedit", "act_csum", "act_tunnel_key"),
    *(
        "act_police",
        "act_ct",
        "nf_conntrack_netlink",
        "act_sample",
        "act_mpls",
        "act_skbmod",
        "act_simple",
        "act_nat",
        "act_ctinfo",
        "act_connmark",
        "act_ife",
        "act_meta_mark",
        "act_meta_skbprio",
        "act_meta_skbtcindex",
    ),
    *("act_bpf", "cls_u32", "cls_bpf", "cls_fw", "em_cmp", "em_u32", "em_meta"),
)

_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 1, 4, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_SOL_NETLINK, _NETLINK_EXT_ACK = 270, 11
_HEADER = struct.Struct("=IHHII")

_ETH_P_ALL = 3
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
_SKF_AD_IFINDEX = 0xFFFFF000 + 8
_SOL_PACKET, _PACKET_RX_RING, _PACKET_VERSION, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 5, 10, 15, 23
_VIRTIO_NET_HDR = struct.Struct("=BBHHHH")
_NEEDS_CSUM, _GSO_TCPV4, _GSO_TCPV6 = 1, 1, 4
_TCP_CHECKSUM = 16
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_TPACKET_V2 = 1
_TP_USER, _TP_LOSING, _TP_VLAN, _TP_VLAN_TPID = 1, 4, 0x10, 0x40
_BLOCK, _SLOT, _BLOCKS = 1 << 16, 1 << 11, 128
_TPACKET = struct.Struct("=IIIHHIIHH4x")
_IFINDEX = struct.Struct("=i")
_SLL_IFINDEX = _TPACKET.size + 4
_PATIENCE_MS = 120_000
_MARKER = b"\xff" * 6 + bytes(6) + b"\x88\xb5"

_Captured = tuple[int, "tuple[int, int] | None", bytes]
_LIBC = ctypes.CDLL(None, use_errno=True)
_RB_POWER_OFF = 0x4321FEDC


def _mount(source: str, target: str, kind: str, data: str = "") -> None:
    if _LIBC.mount(source.encode(), target.encode(), kind.encode(), 0, data.encode()):
        raise OSError(ctypes.get_errno(), f"mount {kind} on {target}")


def set_up(directory: str, modules: tuple[str, ...] = MODULES) -> str:
    """File systems, modules, network devices. Where *directory* of the host can be written."""
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    _mount("proc", "/proc", "proc")
    _mount("sysfs", "/sys", "sysfs")
    _mount("tmpfs", "/tmp", "tmpfs")
    os.makedirs("/tmp/share")
    _mount("none", "/tmp/share", "hostfs", directory)
    os.makedirs("/tmp/lib")
    os.symlink("/usr/lib/uml/modules", "/tmp/lib/modules")
    Path("/tmp/options.conf").write_text("options bonding max_bonds=0\n")
    run_command(["modprobe", "-C", "/tmp/options.conf", "-d", "/tmp", "-a", *modules])
    for scope in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
    lines = []
    for port in range(PORTS):
        near, far, bond = NEAR + port, FAR + port, BOND + port
        lines.append(f"link add name n{port} index {near} type veth peer name f{port} index {far}")
        lines.append(f"link add name b{port} index {bond} type bond mode balance-rr")
        lines.append(f"link set n{port} master b{port}")
        lines += [f"link set {name}{port} up" for name in "nfb"]
    for one, other in ((MARKER_IN, MARKER_RELAY), (MARKER_OUT, MARKER_END)):
        lines.append(f"link add name m{one} index {one} type veth peer name m{other} index {other}")
        lines += [f"link set m{end} up" for end in (one, other)]
    run_command(["ip", "-batch", "-"], "\n".join(lines))
    run_command(["tc", "qdisc", "add", "dev", f"m{MARKER_RELAY}", "clsact"])
    relay = f"tc filter add dev m{MARKER_RELAY} ingress matchall action mirred egress redirect dev m{MARKER_OUT}"
    run_command(relay.split())
    return "/tmp/share"


def run_command(command: list[str], given: str = "") -> None:
    """Run a program, which gets *given* to read; OSError when it fails."""
    done = subprocess.run(command, input=given, text=True, capture_output=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")


class Netlink:
    """An rtnetlink connection that asks many things at once."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
        self._buffer = bytearray(1 << 18)
        self._seq = 0

    def ask(self, asks: list[tuple[int, int, bytes]]) -> list[list[tuple[int, int, bytes]]]:
        """The answer to each request (type, flags, payload). Only the last may be a dump."""
        first = self._seq + 1
        out = bytearray()
        for kind, flags, payload in asks:
            self._seq += 1
            length = _HEADER.size + len(payload)
            out += _HEADER.pack(length, kind, flags | _NLM_F_REQUEST | _NLM_F_ACK, self._seq, 0)
            out += payload + bytes(-length % 4)
        self._socket.send(out)
        answers: list[list[tuple[int, int, bytes]]] = [[] for _ in asks]
        open_ends = len(asks)
        while open_ends:
            size = self._socket.recv_into(self._buffer)
            at = 0
            while at + _HEADER.size <= size:
                length, kind, flags, seq, _ = _HEADER.unpack_from(self._buffer, at)
                answers[seq - first].append((kind, flags, bytes(self._buffer[at + _HEADER.size : at + length])))
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    open_ends -= 1
                at += (length + 3) & ~3
        return answers


class Wires:
    """The far ends: sends frames in, captures what comes out."""

    def __init__(self) -> None:
        self._ring = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._ring.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
        self._ring.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._only_ends()
        slots = _BLOCKS * _BLOCK // _SLOT
        self._ring.setsockopt(_SOL_PACKET, _PACKET_RX_RING, struct.pack("=IIII", _BLOCK, _BLOCKS, _SLOT, slots))
        self._memory = mmap.mmap(self._ring.fileno(), _BLOCKS * _BLOCK)
        self._slots = slots
        self._next = 0
        self._poll = select.poll()
        self._poll.register(self._ring, select.POLLIN)
        self._ends = [self._end(f"f{port}") for port in range(PORTS)]
        self._marker = self._end(f"m{MARKER_IN}")
        self._marks = 0

    def _only_ends(self) -> None:
        """Let the socket see far ends, bonds and the marker's end alone: a classic BPF program on the ifindex."""
        program = [(0x20, 0, 0, _SKF_AD_IFINDEX), (0x35, 0, 1, FAR), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0)]
        code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
        attach = struct.pack("@HP", len(program), ctypes.addressof(code))
        self._ring.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, attach)

    @staticmethod
    def _end(name: str) -> socket.socket:
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        end.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        end.bind((name, 0))
        return end

    def send(self, port: int, frame: bytes, mss: int) -> None:
        """*frame* comes in by *port*; with *mss*, a TCP super-packet with a tag at most and no IP options."""
        header = bytes(_VIRTIO_NET_HDR.size)
        if mss:
            ip = 14 if frame[12:14] in (_IPV4, _IPV6) else 18
            kind, tcp = (_GSO_TCPV4, ip + 20) if frame[ip - 2 : ip] == _IPV4 else (_GSO_TCPV6, ip + 40)
            header = _VIRTIO_NET_HDR.pack(_NEEDS_CSUM, kind, tcp + 20, mss, tcp, _TCP_CHECKSUM)
        self._ends[port].send(header + frame)

    def captured(self) -> list[_Captured]:
        """All that came out since the last time: (ifindex, (TPID, TCI), frame without that tag)."""
        return [*self._until_marked(), *self._until_marked()]

    def _until_marked(self) -> list[_Captured]:
        """What comes out before a marker that is sent now."""
        self._marks += 1
        mark = _MARKER + self._marks.to_bytes(8, "big")
        self._marker.send(bytes(_VIRTIO_NET_HDR.size) + mark)
        out: list[_Captured] = []
        while True:
            one = self._take()
            if one is None:
                if not self._poll.poll(_PATIENCE_MS):
                    raise OSError("the marker did not come out")
                continue
            if one[0] == MARKER_END:
                if one[2] == mark:
                    return out
                continue
            out.append(one)

    def _take(self) -> _Captured | None:
        at = self._next * _SLOT
        status, length, there, start, _, _, _, tci, tpid = _TPACKET.unpack_from(self._memory, at)
        if not status & _TP_USER:
            return None
        if status & _TP_LOSING or length != there:
            raise OSError("frames were lost or cut: the ring is too small")
        (ifindex,) = _IFINDEX.unpack_from(self._memory, at + _SLL_IFINDEX)
        frame = self._memory[at + start : at + start + there]
        self._memory[at : at + 4] = bytes(4)
        self._next = (self._next + 1) % self._slots
        tag = None
        if status & _TP_VLAN:
            tag = (tpid if status & _TP_VLAN_TPID else 0x8100, tci)
        return ifindex, tag, frame


def run(steps: list[tuple[Any, ...]], netlink: Netlink, wires: Wires) -> tuple[Any, ...]:
    """One case; its result."""
    answers: list[list[tuple[int, int, bytes]]] = []
    captures: list[_Captured] = []
    batch: list[tuple[int, int, bytes]] = []
    sent = False
    for step in steps:
        if step[0] == "ask":
            if sent:
                captures += wires.captured()
                sent = False
            batch.append(step[1:])
            if step[2] & _NLM_F_DUMP and step[1] & 3 == 2:
                answers += netlink.ask(batch)
                batch = []
            continue
        if batch:
            answers += netlink.ask(batch)
            batch = []
        if step[0] == "run":
            done = subprocess.run(step[1], shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            answers.append([(done.returncode, 0, done.stdout)])
            continue
        wires.send(*step[1:])
        sent = True
    if batch:
        answers += netlink.ask(batch)
    if sent:
        captures += wires.captured()
    return "case", answers, captures


def power_off() -> None:
    """End the kernel."""
    os.sync()
    _LIBC.reboot(_RB_POWER_OFF)


Do = Callable[[list[tuple[Any, ...]]], tuple[Any, ...]]
"""Does a case; its result."""


def main(start: Callable[[], Do], modules: tuple[str, ...] = MODULES) -> None:
    """Set the kernel up, do every case with what *start* gives then, and end the kernel."""
    try:
        share = set_up(sys.argv[1], modules)
        with open(f"{share}/cases", "rb") as cases, open(f"{share}/results", "wb") as results:
            try:
                do = start()
                while True:
                    try:
                        case = pickle.load(cases)
                    except EOFError:
                        break
                    pickle.dump(do(case), results)
            except BaseException:
                pickle.dump(("failed", traceback.format_exc()), results)
    except BaseException:
        traceback.print_exc()
    finally:
        power_off()


def _start() -> Do:
    netlink, wires = Netlink(), Wires()
    return lambda steps: run(steps, netlink, wires)


if __name__ == "__main__":
    main(_start)
