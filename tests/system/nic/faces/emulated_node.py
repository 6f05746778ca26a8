# SPDX-License-Identifier: Apache-2.0
"""A node with software NICs and the kernel's faces, and no eSwitch: as a program, and :class:`Node` that drives it.

The program has a network and a mount namespace of its own, so that whatever kills it, nothing stays mounted and no
device stays. A child of it holds the node's view: the same network namespace, and /sys as a node has it. Programs of a
test run there. It is told things on its standard input, one line of JSON each, and answers on its standard output; it
ends with its input.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError as RouteError

import asap2.netlink
from asap2.netlink.namespaces import cookie_of
from asap2.netlink.server import Server
from asap2.nic.device import Driver
from asap2.nic.faces.devlink.face import DevlinkFace
from asap2.nic.faces.ethtool.face import EthtoolFace
from asap2.nic.faces.rtnetlink.face import LinkFace
from asap2.nic.faces.sysfs.face import SysFs
from asap2.nic.function import ZERO_MAC, EswitchMode, Function, Nic, Pf, Role, Vf
from asap2.nic.netdevs import Counters, NetDev, Where
from tests.system.patience import PATIENCE

CLONE_NEWNS, CLONE_NEWNET = 0x0002_0000, 0x4000_0000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
PR_SET_PDEATHSIG = 1
FACES = ("bus/pci", "class/net", "devices", "module")
"""What a node's /sys takes from the file system that is served."""
REDIRECT = Path(asap2.netlink.__file__).with_name("redirect.so")

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    """OSError for a system call that failed."""
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount(source: str | Path, target: str | Path, kind: str = "", flags: int = 0) -> None:
    """mount(2)."""
    check(libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), flags, None))


class VethBackend:
    """The driver's backend on real veth pairs; the far ends are in a namespace that nobody else has. Netdevs too."""

    def __init__(self) -> None:
        opened: list[int] = []

        def make() -> None:
            check(libc.unshare(CLONE_NEWNET))
            opened.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        self.silicon = opened[0]
        self.links = IPRoute()
        self.known: dict[int, tuple[Role, Function | None]] = {}
        self.gone: dict[int, tuple[Role, Function | None]] = {}
        self.rules = 0
        with socket.socket() as probe:
            self.home = cookie_of(probe)

    # ---- Backend

    def _pair(self, name: str, role: Role, function: Function | None, mac: bytes) -> int:
        before = {index for index, _ in socket.if_nameindex()}
        given = {"address": mac.hex(":")} if any(mac) else {}
        far: dict[str, Any] = {"ifname": f"far{len(self.known)}x{id(function) & 0xFFFF:x}", "net_ns_fd": self.silicon}
        self.links.link("add", ifname=name, kind="veth", peer=far, **given)
        (index,) = {index for index, _ in socket.if_nameindex()} - before
        self.known[index] = (role, function)
        return index

    def _remove(self, role: Role, function: Function) -> None:
        for index, (its_role, its_function) in list(self.known.items()):
            if its_role is role and its_function is function:
                self.gone[index] = self.known.pop(index)
                with contextlib.suppress(RouteError):
                    self.links.link("del", index=index)

    def create(self, function: Function) -> None:
        self._pair(function.netdev, function.role, function, function.mac)

    def destroy(self, function: Function) -> None:
        self._remove(function.role, function)

    def create_representor(self, function: Function) -> None:
        self._pair("eth%d", Role.REPRESENTOR, function, ZERO_MAC)

    def destroy_representor(self, function: Function) -> None:
        self._remove(Role.REPRESENTOR, function)

    def program(self, _pf: Pf) -> None:
        pass

    def create_internal(self, name: str) -> None:
        """Make what stands for an internal port of Open vSwitch."""
        self._pair(name, Role.INTERNAL, None, ZERO_MAC)

    # ---- NetDevs

    def all(self) -> list[NetDev]:
        names = socket.if_nameindex()
        return [NetDev(index, name, *self.known[index]) for index, name in names if index in self.known]

    def by_ifindex(self, ifindex: int, netns_cookie: int | None = None) -> NetDev | None:
        found = next((device for device in self.all() if device.ifindex == ifindex), None)
        if netns_cookie in (None, self.home):
            return found
        away = self.known.get(ifindex)
        return NetDev(ifindex, "", *away) if away and away[0] is Role.VF and not found else None

    def inside(self, _namespace: int) -> list[NetDev]:
        return []

    def by_nsid(self, ifindex: int, id_in: Callable[[int], int | None]) -> NetDev | None:
        return self.by_ifindex(ifindex) if id_in(-1) is not None else None

    def hidden(self) -> list[int]:
        return []

    def last_known(self, ifindex: int, netns_cookie: int | None = None) -> NetDev | None:
        gone = self.gone.get(ifindex)
        return self.by_ifindex(ifindex, netns_cookie) or (NetDev(ifindex, "", *gone) if gone else None)

    def counted(self, _device: NetDev, _where: Where) -> Counters:
        return Counters()

    def vf_counters(self, _vf: Vf) -> dict[str, int]:
        return {}

    def limit(self, _function: Function, _mbit: int) -> bool:
        return False

    def unlimit(self, _function: Function) -> None:
        pass

    def by_name(self, name: str, netns_cookie: int | None = None) -> NetDev | None:
        found = next((device for device in self.all() if device.name == name), None)
        return found if netns_cookie in (None, self.home) else None


# ---- the program


class Program:
    """What runs in the namespaces: driver, file system, and the netlink faces where there is a server."""

    def __init__(self, directory: Path, nics: list[dict[str, Any]]) -> None:
        self.directory = directory
        self.lock = threading.RLock()
        self.backend = VethBackend()
        self.driver = Driver([Nic.configured(nic) for nic in nics], self.backend, lambda _pf: self.backend.rules)
        self.driver.probe_all()
        self.selector = selectors.DefaultSelector()
        self.server = Server(directory / "netlink.sock", self.lock)
        self.masters: dict[int, int] = {}
        self.links = LinkFace(
            self.server, self.driver, self.backend, master=self.masters.get, immovable=lambda _ifindex: False
        )
        self.devlink = DevlinkFace(self.server, self.driver, self.backend)
        self.ethtool = EthtoolFace(
            self.server,
            self.driver,
            self.backend,
            tunnel_ports=lambda: (),
            features_changed=lambda _netns, _device: None,
        )
        real, served = directory / "real", directory / "served"
        self.sysfs = SysFs(self.driver, self.backend, real, served, self.lock, self.devlink.changed)
        self.sysfs.start()
        self.server.attach(self.selector)

    def tell(self, request: dict[str, Any]) -> Any:
        """Do what a test wants done behind the faces."""
        match request:
            case {"process": _}:
                status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
                return os.getcwd(), int(status["SigCgt"], 16), int(status["SigIgn"], 16)
            case {"rules": int(count)}:
                self.backend.rules = count
            case {"mode": str(mode)}:
                self.driver.set_mode(self.driver.nics[0].pfs[0].bdf, EswitchMode[mode.upper()])
            case {"internal": str(name)}:
                self.backend.create_internal(name)
            case {"state": _}:
                return self.driver.snapshot()
            case {"slave": str(slave), "master": str(master)}:
                indices = {device.name: device.ifindex for device in self.backend.all()}
                self.masters |= {indices[slave]: indices[master]}
            case {"up": bool(up), "name": str(name)}:
                device = self.backend.by_name(name)
                assert device
                self.links.link_changed(device, up)
            case {"members": str(family)}:
                return any(self.server._groups._members[group] for _, group in self._groups(family))
            case {"stop": _}:
                self.sysfs.stop()
                return os.path.ismount(self.directory / "served")
            case _:
                raise ValueError(f"what is {request}?")
        return None

    def _groups(self, family: str) -> list[tuple[str, int]]:
        families = self.server._dispatcher.families.values()
        return [group for one in families if one.name == family for group in one.groups]

    def run(self) -> None:
        """Serve until the input ends."""
        view = self._view()
        print(json.dumps({"view": view}), flush=True)
        self.selector.register(sys.stdin, selectors.EVENT_READ, self._line)
        while True:
            for key, mask in self.selector.select():
                key.data(mask)

    def _line(self, _mask: int) -> None:
        line = sys.stdin.readline()
        if not line:
            os._exit(0)
        with self.lock:
            answer = self.tell(json.loads(line))
        print(json.dumps({"answer": answer}), flush=True)

    def _view(self) -> int:
        """A child whose /sys is the node's; it lives as long as this process."""
        ready, tell = os.pipe()
        child = os.fork()
        if not child:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.dup2(tell, 0)
            os.closerange(1, 1 << 10)  # above all /dev/fuse, which would keep the file system alive
            check(libc.unshare(CLONE_NEWNS))
            mount(self.directory / "real", "/sys", flags=MS_BIND)
            for face in FACES:
                mount(self.directory / "served" / face, f"/sys/{face}", flags=MS_BIND)
            mount(self.directory / "real/devices/system", "/sys/devices/system", flags=MS_BIND)
            with contextlib.suppress(OSError):
                mount("tmpfs", "/proc/bus/pci", "tmpfs")
            os.write(0, b"1")
            os.close(0)
            while True:
                signal.pause()
        os.close(tell)
        if os.read(ready, 1) != b"1":
            raise RuntimeError("the node's /sys could not be laid out")
        os.close(ready)
        return child


def main() -> None:
    """``emulated_node DIRECTORY NICS``: DIRECTORY is an empty one; NICS is JSON as in the daemon's configuration."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    directory, nics = Path(sys.argv[1]), json.loads(sys.argv[2])
    check(libc.unshare(CLONE_NEWNET | CLONE_NEWNS))
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", directory, "tmpfs")
    for name in ("real", "served"):
        (directory / name).mkdir()
    mount("sysfs", directory / "real", "sysfs")
    Program(directory, nics).run()


# ---- the tests' side


class CommandError(Exception):
    """A command that was to succeed did not."""


class Node:
    """A running node. Give it back with :meth:`close`."""

    def __init__(self, directory: Path, *, ports: int = 1, total_vfs: int = 8, model: str = "ConnectX-5") -> None:
        nic = {"name": "nic0", "model": model, "pci": "0000:03:00.0", "ports": ports, "total_vfs": total_vfs}
        command = [sys.executable, "-m", __name__, str(directory), json.dumps([{**nic, "netns": "t"}])]
        self.directory = directory
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.view: int = self._answer()["view"]

    def _answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise CommandError("the node died")
        return json.loads(line)

    def tell(self, **request: Any) -> Any:
        """Have something done behind the faces: see :meth:`Program.tell`."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()["answer"]

    @property
    def _enter(self) -> list[str]:
        served = f"/proc/{self.process.pid}/root{self.directory}/netlink.sock"
        redirected = ["env", f"LD_PRELOAD={REDIRECT}", f"ASAP2_NETLINK_SOCK={served}"]
        return ["nsenter", "-t", str(self.view), "-m", "-n", "--", *redirected]

    @contextlib.contextmanager
    def start(self, line: str) -> Iterator[subprocess.Popen[str]]:
        """A running program of the node, ended with the block; its output can be read."""
        words = [*self._enter, "bash", "-c", line]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                yield process
            finally:
                process.terminate()

    def wait(self, **request: Any) -> None:
        """Ask :meth:`Program.tell` until the answer is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.tell(**request):
            if time.monotonic() > deadline:
                raise CommandError(f"{request} stays untrue")

    def try_(self, *command: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program in the node; a single word is a line for bash."""
        words = ["bash", "-c", command[0]] if len(command) == 1 else list(command)
        return subprocess.run(
            [*self._enter, *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
        )

    @contextlib.contextmanager
    def nested(self) -> Iterator[int]:
        """A process in a further network namespace of the node: its process id."""
        enter = ["nsenter", "-t", str(self.view), "-m", "-n", "unshare", "-n", "sh", "-c", "echo ready; exec cat"]
        with subprocess.Popen(enter, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            yield process.pid

    def run(self, *command: str) -> str:
        """What a program prints that ends well; :class:`CommandError` with its error else."""
        done = self.try_(*command)
        if done.returncode:
            raise CommandError(f"{command}: {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def fail(self, *command: str) -> str:
        """The error text of a program that must fail."""
        done = self.try_(*command)
        if not done.returncode:
            raise CommandError(f"{command} ended well: {done.stdout}")
        return done.stderr

    def close(self) -> None:
        """End it and everything in it."""
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


NodeMaker = Callable[..., Node]

if __name__ == "__main__":
    main()
