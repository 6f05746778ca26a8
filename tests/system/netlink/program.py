# SPDX-License-Identifier: Apache-2.0
"""Programs that the tests run with the redirect library; each function is one, and prints what it saw."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import resource
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable

from asap2.netlink.client import GENL_ID_CTRL, Connection, genl_family
from asap2.netlink.tables import tc
from asap2.netlink.wire import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_DROP_MEMBERSHIP,
    NETLINK_GENERIC,
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    SOL_NETLINK,
    build,
    error_of,
    split,
)

TOY = 0x7000
ECHO = b"\1\1\0\0HEADtext"
TOY_UPCALLS, TOY_EVENT, TOY_BIG, TOY_DIE = 2, 3, 4, 5


def genl() -> socket.socket:
    """A new generic netlink socket."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)


def echo(sock: socket.socket | None = None) -> str:
    """One request to the toy family, whose answer must be there at once: ``ok``, or what went wrong."""
    own = sock or genl()
    try:
        own.send(build(TOY, NLM_F_REQUEST, 1, 0, ECHO))
        (message,) = split(own.recv(4096, socket.MSG_DONTWAIT))
        if error_of(message):
            return str(error_of(message))
        return "ok" if message.payload == ECHO else message.payload.hex()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    finally:
        if sock is None:
            own.close()


def one() -> None:
    print(echo())


def fork() -> None:
    """Parent and child use the library by turns, on the same socket and on their own."""
    sock = genl()
    print(f"before: {echo(sock)}", flush=True)
    child = os.fork()
    if child == 0:
        print(f"child: {echo(sock)} on the parent's socket, {echo()} on its own", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print(f"parent: {echo(sock)} on the shared socket, {echo()} on another")


def threads() -> None:
    """Eight threads at once, 200 requests each, on sockets of their own."""
    wrong: list[str] = []

    def work() -> None:
        with genl() as sock:
            wrong.extend(said for said in (echo(sock) for _ in range(200)) if said != "ok")

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    while len(os.listdir("/proc/self/task")) > 1:  # join() returns before a thread is quite gone
        os.sched_yield()
    print("wrong:", wrong)
    open_fds = [
        os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd.isdigit() and int(fd) > 700
    ]
    print("left open:", len(open_fds))


def exec_() -> None:
    """Another program in the same process."""
    assert echo() == "ok"
    os.execv(sys.executable, [sys.executable, __file__, "one"])


def close_all() -> None:
    """Close every descriptor, ours among them, and let other files have their numbers."""
    assert echo() == "ok"
    os.closerange(3, 2000)
    print(echo(), flush=True)
    taken = [fd for fd in range(3, 1000) if _is_open(fd)]
    for fd in taken:
        os.close(fd)
        null = os.open("/dev/null", os.O_RDWR)
        if null != fd:
            os.dup2(null, fd)
            os.close(null)
    print(echo(), flush=True)
    print("files kept:", all(os.readlink(f"/proc/self/fd/{fd}") == "/dev/null" for fd in taken))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def few_descriptors() -> None:
    """With a low limit of open files."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    print(echo())


def signals() -> None:
    """Requests from a signal handler that interrupts requests."""
    said: list[str] = []
    signal.signal(signal.SIGALRM, lambda *_: said.append(echo()))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    with genl() as sock:
        while len(said) < 50:
            said.append(echo(sock))
    signal.setitimer(signal.ITIMER_REAL, 0)
    print({*said})


def connected() -> None:
    """A socket connected to the kernel, the other ways to send, and whom replies come from."""
    request = build(TOY, NLM_F_REQUEST, 1, 0, ECHO)
    with genl() as sock:
        sock.setsockopt(socket.SOL_SOCKET, 16, 1)  # SO_PASSCRED
        sock.connect((0, 0))
        print(sock.getpeername()[0])
        ways: list[Callable[[], int]] = [
            lambda: sock.send(request),
            lambda: os.write(sock.fileno(), request),
            lambda: os.writev(sock.fileno(), [request[:10], request[10:]]),
            lambda: sock.sendmsg([request[:20], request[20:]], [], 0, (0, 0)),
            lambda: sock.sendto(request, (0, 0)),
        ]
        for send in ways:
            send()
            data, ancillary, _flags, address = sock.recvmsg(4096, 256, socket.MSG_DONTWAIT)
            credentials = [struct.unpack("=iII", value) for _level, _type, value in ancillary]
            print(split(data)[0].payload == ECHO, address, credentials)
        sock.send(request)
        print(sock.recvfrom(4096)[1])
        sock.send(request)
        print(split(os.read(sock.fileno(), 4096))[0].payload == ECHO)
        sock.send(build(TOY, NLM_F_REQUEST | NLM_F_ACK, 1, 0, b"\x63\0\0\0HEAD"))
        print(error_of(split(sock.recv(4096))[0]))


def elsewhere() -> None:
    """What is sent to another program, not to the kernel, is left alone."""
    with genl() as sender, genl() as receiver:
        receiver.bind((0, 0))
        sender.sendto(build(TOY, NLM_F_REQUEST, 1, 0, ECHO), (receiver.getsockname()[0], 0))
        data, address = receiver.recvfrom(4096)
        print(split(data)[0].payload == ECHO, address[0] == sender.getsockname()[0])
        sender.connect((receiver.getsockname()[0], 0))
        sender.send(build(TOY, NLM_F_REQUEST, 2, 0, ECHO))
        print(split(receiver.recv(4096))[0].seq)


def many_messages() -> None:
    """sendmmsg() and recvmmsg(), by libc."""
    libc = ctypes.CDLL(None, use_errno=True)
    request = build(TOY, NLM_F_REQUEST, 1, 0, ECHO)

    class IoVec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]

    class MsgHdr(ctypes.Structure):
        _fields_ = [
            ("name", ctypes.c_void_p),
            ("name_length", ctypes.c_uint),
            ("parts", ctypes.POINTER(IoVec)),
            ("count", ctypes.c_size_t),
            ("control", ctypes.c_void_p),
            ("control_length", ctypes.c_size_t),
            ("flags", ctypes.c_int),
        ]

    class MMsgHdr(ctypes.Structure):
        _fields_ = [("header", MsgHdr), ("length", ctypes.c_uint)]

    with genl() as sock:
        out = (MMsgHdr * 3)()
        for message in out:
            message.header.parts = ctypes.pointer(IoVec(request, len(request)))
            message.header.count = 1
        print(libc.sendmmsg(sock.fileno(), out, 3, 0), [message.length for message in out])
        back = (MMsgHdr * 4)()
        names = [ctypes.create_string_buffer(12) for _ in back]
        rooms = [ctypes.create_string_buffer(4096) for _ in back]
        for message, name, room in zip(back, names, rooms, strict=True):
            message.header.name = ctypes.addressof(name)
            message.header.name_length = 12
            message.header.parts = ctypes.pointer(IoVec(ctypes.cast(room, ctypes.c_char_p), 4096))
            message.header.count = 1
        got = libc.recvmmsg(sock.fileno(), back, 4, socket.MSG_DONTWAIT, None)
        print(got, [struct.unpack_from("=I", name, 4)[0] for name in names[:got]])


def batch() -> None:
    """Messages of ours and of the kernel in one send; the answers' sequence numbers, and what they are."""

    def filter_(kind: str) -> bytes:
        header = tc.Tcmsg(0, 1, 0, tc.TC_H_MIN_INGRESS, tc.info(1, 0x800))
        return tc.TC.encode(header, {"kind": kind, "options": b""})

    parts = [
        (tc.RTM_NEWTFILTER, filter_("flower")),
        (tc.RTM_NEWTFILTER, filter_("matchall")),
        (22, bytes(8)),
        (tc.RTM_NEWTFILTER, filter_("flower")),
        (tc.RTM_NEWTFILTER, filter_("flower")),
        (22, bytes(8)),
    ]
    raw = b"".join(
        build(type_, NLM_F_REQUEST | NLM_F_ACK, seq, 0, payload) for seq, (type_, payload) in enumerate(parts, 1)
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as sock:
        print(sock.send(raw) == len(raw))
        seen: list[tuple[int, bool]] = []
        while len(seen) < len(parts):
            for message in split(sock.recv(65536, socket.MSG_DONTWAIT)):
                seen.append((message.seq, bool(error_of(message))))
        print(seen)


def long_batch() -> None:
    """More than the library submits at once."""
    count = 3000
    payload = b"\1\1\0\0HEAD" + bytes(40)
    raw = b"".join(build(TOY, NLM_F_REQUEST, seq, 0, payload) for seq in range(count))
    with genl() as sock:
        sock.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)  # SO_RCVBUFFORCE
        sock.setsockopt(socket.SOL_SOCKET, 32, 1 << 20)
        print(sock.send(raw) == len(raw), [split(sock.recv(4096))[0].seq for _ in range(count)] == list(range(count)))


def big_dump() -> None:
    """A dump of 8 MB into the default receive buffer, read through a buffer of one page; then requests as before."""
    with genl() as sock:
        sock.send(build(TOY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0, bytes((TOY_BIG, 1, 0, 0)) + bytes(4)))
        sock.send(build(TOY, NLM_F_REQUEST | NLM_F_DUMP, 2, 0, bytes((TOY_BIG, 1, 0, 0)) + bytes(4)))
        numbers, last, busy = [], None, None
        while last is None or busy is None:
            for message in split(sock.recv(4096)):
                if message.type == NLMSG_DONE:
                    last = message
                elif message.seq == 2:
                    busy = error_of(message)
                else:
                    numbers.append(struct.unpack_from("=I", message.payload, 4)[0])
        assert busy is not None
        print(numbers == list(range(20_000)), last.payload == bytes(4), errno.errorcode[busy.errno or 0])
        print(echo(sock))


def abandoned_dump() -> None:
    """Half a dump is read, then the socket is closed; the server must not mind."""
    for _ in range(20):
        with genl() as sock:
            sock.send(build(TOY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0, bytes((TOY_BIG, 1, 0, 0)) + bytes(4)))
            sock.recv(4096)
    print(echo())


def upcalls(count: str) -> None:
    """Unsolicited messages to this socket: how many came, and what their sender was told."""
    with genl() as sock:
        sock.send(build(TOY, NLM_F_REQUEST, 1, 0, struct.pack("=BBHI", TOY_UPCALLS, 1, 0, int(count))))
        numbers, answer = [], None
        while answer is None:
            (message,) = split(sock.recv(4096))
            if message.payload[1] == 2:
                answer = struct.unpack_from("=III", message.payload, 4)
            else:
                numbers.append(struct.unpack_from("=I", message.payload, 4)[0])
        sent, full, gone = answer
        print(sent == len(numbers), sent + full == int(count), full > 0, gone, numbers == list(range(sent)))


def events() -> None:
    """A multicast group of an emulated family: join, hear, leave, hear no more; a group that is none."""
    trigger = build(TOY, NLM_F_REQUEST | NLM_F_ACK, 1, 0, bytes((TOY_EVENT, 1, 0, 0)) + bytes(4))
    with Connection(NETLINK_GENERIC) as asking, genl() as member, genl() as sender:
        family = genl_family(asking, "toy")
        assert family is not None
        print(family)
        member.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, family.groups["events"])
        sender.send(trigger)
        print(struct.unpack_from("=I", split(member.recv(4096, socket.MSG_DONTWAIT))[0].payload, 4))
        member.setsockopt(SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, family.groups["events"])
        sender.send(trigger)
        try:
            print(member.recv(4096, socket.MSG_DONTWAIT))
        except BlockingIOError:
            print("nothing")
        try:
            member.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, 0x7777)
        except OSError as error:
            print(errno.errorcode[error.errno or 0])


def restart() -> None:
    """A member of a group, while the server is killed and started anew; asks at each line of standard input."""
    trigger = build(TOY, NLM_F_REQUEST | NLM_F_ACK, 1, 0, bytes((TOY_EVENT, 1, 0, 0)) + bytes(4))
    with genl() as member, genl() as sock:
        member.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, TOY)
        print(echo(sock), flush=True)
        for _line in sys.stdin:
            said = echo(sock)
            heard = "deaf"
            if said == "ok":
                sock.send(trigger)
                sock.recv(4096)
                heard = "heard" if member.recv(4096, socket.MSG_DONTWAIT) else ""
            print(said, heard, flush=True)


def death() -> None:
    """The server dies while it answers: an error, and the kernel gets neither this request nor the next."""
    with genl() as sock:
        sock.send(build(TOY, NLM_F_REQUEST, 7, 0, bytes((TOY_DIE, 1, 0, 0)) + bytes(4)))
        (message,) = split(sock.recv(4096))
        print(message.seq, error_of(message))
        print(echo(sock))
    with Connection(NETLINK_GENERIC) as connection:
        try:
            print(genl_family(connection, "nlctrl"))
        except OSError as error:
            print(error)


def fuzz(seed: str) -> None:
    """Noise and damaged requests by the thousand; the server must go on."""
    dice = random.Random(int(seed))
    seeds = [
        (NETLINK_GENERIC, build(TOY, NLM_F_REQUEST | NLM_F_ACK, 1, 0, ECHO)),
        (NETLINK_GENERIC, build(0x7001, NLM_F_REQUEST | NLM_F_ACK, 1, 0, b"\x1d\1\0\0\x08\0\1\0pci\0")),
        (NETLINK_GENERIC, build(GENL_ID_CTRL, NLM_F_REQUEST, 1, 0, b"\3\1\0\0\x08\0\2\0toy\0")),
        (NETLINK_ROUTE, build(44, NLM_F_REQUEST | NLM_F_ACK, 1, 0, bytes(20) + b"\x0b\0\1\0flower\0\0")),
        (NETLINK_ROUTE, build(18, NLM_F_REQUEST, 1, 0, bytes(16) + b"\x08\0\x1d\0\1\0\0\0")),
    ]
    for _ in range(2000):
        protocol, raw = dice.choice(seeds)
        damaged = bytearray(raw)
        for _ in range(dice.randrange(5)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        if damaged[16:17] and damaged[4:6] == b"\0\x70":
            damaged[16] = min(damaged[16], 1)  # not the commands that die or send by the thousand
        del damaged[dice.randrange(len(damaged) + 1) :]
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as sock:
            try:
                sock.send(bytes(damaged))
                sock.recv(65536, socket.MSG_DONTWAIT)
            except OSError:
                continue
    print(echo())


def fuzz_side_channel(seed: str) -> None:
    """Noise on the side channel itself, as no library of ours would make."""
    dice = random.Random(int(seed))
    path = os.environ["ASAP2_NETLINK_SOCK"]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC) as probe:
        cookie = probe.getsockopt(socket.SOL_SOCKET, 71, 8)
    for turn in range(1000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(path)
            noise = dice.randbytes(dice.randrange(200))
            if turn % 2:
                asked = struct.pack("=IIII", dice.randrange(9), 0, dice.choice([0, 16, 99]), dice.randrange(1 << 32))
                noise = asked + cookie + struct.pack("=II", dice.randrange(16), dice.randrange(1 << 32)) + noise
            fds = [0] if turn % 3 == 0 else []
            socket.send_fds(sock, [noise], fds)
            if turn % 5 == 0:
                sock.recv(4096)
                sock.recv(4096)
    print(echo())


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
