# SPDX-License-Identifier: Apache-2.0
"""The daemon of one node: puts the driver, the silicon and the kernel's faces together and serves them.

``python -m asap2.nic.daemon CONFIG.json`` runs in the node's network namespace and outside its mount namespace. It can
be killed at any time: the silicon forwards on, and the next one takes up the state kept below ``run_dir``.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import logging
import os
import selectors
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from asap2.netlink import listener
from asap2.netlink.admission import raise_limit
from asap2.netlink.request import Netns
from asap2.netlink.server import Server
from asap2.nic import kept_state, links, statistics
from asap2.nic.bonds import bonds
from asap2.nic.conntrack.sweeper import Sweeper
from asap2.nic.daemon_log import log_to_stderr
from asap2.nic.device import Driver
from asap2.nic.faces.conntrack.announcer import Announcer
from asap2.nic.faces.conntrack.face import ConntrackFace
from asap2.nic.faces.conntrack.procfs import files as conntrack_files
from asap2.nic.faces.devlink.face import DevlinkFace
from asap2.nic.faces.ethtool.face import EthtoolFace
from asap2.nic.faces.ovs.ct_limit import CtLimitFace
from asap2.nic.faces.ovs.families import OvsFace
from asap2.nic.faces.ovs.upcall import PacketPath
from asap2.nic.faces.psample.face import PsampleFace
from asap2.nic.faces.rtnetlink.face import IFLA_EVENT_FEATURES, LinkFace
from asap2.nic.faces.rtnetlink.kinds import KindFace
from asap2.nic.faces.sysfs.face import GuestView, SysFs
from asap2.nic.faces.sysfs.modules import files as module_files
from asap2.nic.faces.tc.face import TcFace
from asap2.nic.faces.tc.filters import Filters
from asap2.nic.faces.tc.offload import Offloader
from asap2.nic.faces.tc.root_qdiscs import RootQdiscs
from asap2.nic.faces.tc.sample_groups import SampleGroups
from asap2.nic.faces.tc.tunnels import used_since
from asap2.nic.function import Nic
from asap2.nic.internal_ports import InternalPorts
from asap2.nic.journal import Journal
from asap2.nic.kinds.lacp_speaker import LacpSpeaker
from asap2.nic.kinds.links import KindLinks, open_state
from asap2.nic.kinds.programs import Programs
from asap2.nic.lag import Lags
from asap2.nic.network_namespaces import open_namespace
from asap2.nic.node_ports import NodePorts
from asap2.nic.port_names import of_nic, of_node
from asap2.nic.promiscuity import Promiscuity
from asap2.nic.silicon.pipeline import MAX_CONNECTIONS, Pipeline
from asap2.nic.snapshot import Snapshot
from asap2.nic.tunnels.options import KINDS
from asap2.nic.underlay.resolver import Tunnels
from asap2.nic.underlay.routes import Routes
from asap2.nic.underlay.udp_ports import UdpPorts
from asap2.nic.veth import VethNetDevs, open_pipeline
from asap2.nic.watchers import NODE, Sources, Watchers, path_in

log = logging.getLogger("asap2.nic.daemon")

NODE_RULES = 65536
"""Rules that the node's own pipeline holds: flows of the software datapath and TC rules that are not offloaded."""

STATE_ROOM, STATE_ROOM_OF_VF = 1 << 16, 1536
"""Octets of the driver's state: room for all that a NIC can have, so that a full file system is no obstacle."""

NEIGHBOURS_NS = 5_000_000_000
"""How often the kernel is told which neighbours hardware sends to: the kernel's delay_first_probe_time, as with mlx5
(mlx5e_rep_neigh_update_init_interval)."""

NICENESS = -10
"""The daemon answers in the kernel's place, so it must not wait for a CPU while programs that ask it run: ovs-vswitchd,
which runs at -10 too (ovs-ctl(8), --ovs-vswitchd-priority), would have its flows expire."""

LOOK_NS = 60_000 if (os.cpu_count() or 1) > 1 else 0
"""How long the daemon looks for more to do before it sleeps: who asks needs a CPU meanwhile."""


class Daemon:
    """One node's NICs and datapath."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.run_dir = Path(config["run_dir"])
        self.lock = threading.RLock()
        self.selector = selectors.DefaultSelector()
        self.running = True
        nics = [Nic.configured(entry) for entry in config["nics"]]
        sock = listener.path_in(self.run_dir)
        sock.parent.mkdir(parents=True, exist_ok=True)
        self.server = Server(sock, self.lock)
        state = self.run_dir / "state"
        state.mkdir(exist_ok=True)
        pipeline = Pipeline.open(
            self.run_dir / "bpf" / "node",
            max_rules=NODE_RULES,
            max_connections=config.get("connections", MAX_CONNECTIONS),
        )
        KINDS.bind(pipeline.set_option_kinds, pipeline.option_kinds)
        self.netdevs = VethNetDevs(nics, open_pipeline(self.run_dir), self.server.namespace)
        hidden = self.netdevs.silicon[nics[0].name]
        self.kinds = KindLinks(
            Programs(self.run_dir / "bpf" / "kinds"),
            hidden.reader,
            hidden.fd,
            open_state(state),
            self._open_namespace,
            self.netdevs.node_fd,
        )
        self.lacp = LacpSpeaker(self.kinds, self.selector, self.netdevs.node_fd, self._bonds_changed)
        self.lags = Lags(nics, lambda: bonds(self.kinds, self.netdevs.node), self.netdevs)
        self.routes = Routes()
        self.udp_ports = UdpPorts(
            self.netdevs.node.all,
            self._tunnel_ports_changed,
            self.netdevs.silicon[nics[0].name].pipeline.tunnel_ports,
        )
        self.tunnels = tunnels = Tunnels(self.routes, self._link, self.netdevs.by_ifindex, self.udp_ports)
        self.ports = NodePorts(
            pipeline,
            self.netdevs.is_internal,
            tunnels.port_of,
            self._link,
            Promiscuity().set,
        )
        offloader = Offloader(self.netdevs, lambda nic: self.netdevs.silicon[nic.name].pipeline, self.ports, tunnels)
        vfs = sum(nic.total_vfs * len(nic.pfs) for nic in nics)
        self._driver_state = Snapshot(state / "driver", STATE_ROOM + vfs * STATE_ROOM_OF_VF)
        self._kept = -1
        self._neighbours_told = time.monotonic_ns()
        self._wait: float | None = None
        self.filters = Filters(offloader, Journal(state / "tc.journal"))
        self.driver = Driver(nics, self.netdevs, self.filters.offloaded)
        root = RootQdiscs(self.netdevs, self._hides).shown
        self.tc = TcFace(self.server, self.filters, self.ports, self.netdevs.node_cookie, root)
        self.ovs = OvsFace(
            self.server,
            self.ports,
            InternalPorts(self.netdevs, self.ports),
            Journal(state / "ovs.journal"),
            egress=tunnels.egress,
            counted=self._counted,
            on_packets=self._watch_packets,
        )
        self._samples = pipeline.samples
        self.psample = PsampleFace(
            self.server,
            self._samples,
            SampleGroups(self.filters.actions).current,
            lambda listen: self._listen_to_samples(pipeline, listen),
            self.ovs.delivery.spare_time,
        )
        self.server.memberships_changed = self.psample.look
        self._samples_watched = False
        connections = pipeline.connections
        self.ct_limits = CtLimitFace(self.server, Journal(state / "ct_limit.journal"), connections)
        self.conntrack = ConntrackFace(self.server, connections, pipeline.timeouts)
        connections.expecting = self.conntrack.expectations
        self.sweeper = Sweeper(connections, self.conntrack.gone)
        self.announcer = Announcer(self.conntrack, connections)
        self.server.joined = self.announcer.look
        self._connections = connections
        self._packets: PacketPath | None = None
        kind_face = KindFace(self.server, self.kinds, lambda: self.netdevs.drain() or self.netdevs.unsettled)
        self.link = LinkFace(
            self.server,
            self.driver,
            self.netdevs,
            master=self.ovs.master,
            immovable=self.ovs.is_datapath,
            kinds=kind_face,
        )
        self.devlink = DevlinkFace(self.server, self.driver, self.netdevs)
        self.ethtool = EthtoolFace(
            self.server,
            self.driver,
            self.netdevs,
            tunnel_ports=lambda: self.udp_ports.ports,
            features_changed=lambda netns, device: self.link.announce(netns, device, IFLA_EVENT_FEATURES),
            kind_of=kind_face.kind_called,
        )
        self._guests = guests = {
            one["name"]: GuestView(Path(one["sysfs"]), os.open(one["netns"], os.O_RDONLY | os.O_CLOEXEC))
            for one in config.get("guests", [])
        }
        real, mountpoint = self.run_dir / "realsys", self.run_dir / "sys"
        self.sysfs = SysFs(
            self.driver,
            self.netdevs,
            real,
            mountpoint,
            self.lock,
            self._attribute_written,
            guests,
            {**conntrack_files(self.conntrack), **module_files({"openvswitch": self._unload_openvswitch})},
            self.kinds,
        )

        pipelines = {NODE: pipeline} | {name: one.pipeline for name, one in self.netdevs.silicon.items()}
        self.watchers = Watchers(
            path_in(self.run_dir),
            pipelines,
            lambda name: of_node(pipeline) if name == NODE else of_nic(self.netdevs, name),
            self.selector,
            Sources(self.ovs, self.filters),
        )

    def _link(self, ifindex: int) -> links.Link | None:
        """A link of the node."""
        found = self.netdevs.node.one(ifindex)
        home = self.kinds.namespace(self.netdevs.node_cookie, self.netdevs.node_fd) if len(self.kinds) else None
        return found if found is None or home is None else self.kinds.as_seen(found, home)

    def _hides(self, netns: Netns, ifindex: int) -> bool:
        """Whether a link is a far end of our own kinds."""
        if not len(self.kinds):
            return False
        namespace = self.kinds.namespace(netns.cookie, netns.fd)
        return namespace is not None and self.kinds.hides(namespace, ifindex)

    def _open_namespace(self, wanted: Callable[[int], bool]) -> int | None:
        known = (self.netdevs.node_fd, *(guest.namespace for guest in self._guests.values()))
        return open_namespace(wanted, known, self.run_dir / "ns" / "mnt")

    def _unload_openvswitch(self) -> None:
        """Refused while there is a datapath, each of whose ports holds a reference to the module. The module that puts
        IPv6 fragments together (nf_defrag_ipv6) goes with it; IPv4's are the kernel's own."""
        if self.ovs.datapath is not None:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        self.ct_limits.reset()
        self.ovs.delivery.reassembly.forget_ipv6()

    def _counted(self, ifindex: int) -> tuple[int, ...] | None:
        device = self.netdevs.by_ifindex(ifindex)
        counters = statistics.shown(self.netdevs, device) if device is not None else None
        return counters[:8] if counters is not None else None

    def _attribute_written(self) -> None:
        """A program has changed the driver's state through sysfs (on that thread, under the lock)."""
        self.devlink.changed()
        self._keep()

    def _watch_packets(self, path: PacketPath | None) -> None:
        if self._packets is not None:
            self.selector.unregister(self._packets.receiver)
        self._packets = path
        if path is not None:
            self.selector.register(path.receiver, selectors.EVENT_READ, lambda _mask: self.ovs.read_upcalls())

    def _listen_to_samples(self, node: Pipeline, listen: bool) -> None:
        for pipeline in (node, *(silicon.pipeline for silicon in self.netdevs.silicon.values())):
            pipeline.listen_to_samples(listen)

    def _links_changed(self) -> None:
        """Links have changed: everything that hangs on one follows."""
        if self.netdevs.settle():
            self.driver.generation += 1
        self.kinds.follow()
        self.lacp.follow()
        self._bonds_changed()
        up = self.netdevs.up()
        for device in self.netdevs.all():
            self.link.link_changed(device, device.ifindex in up)
        self.ports.use_eswitch(self.netdevs.eswitch_ports())
        self.tc.links_changed()
        self.ovs.links_changed()
        self.ports.links_changed()
        self.devlink.changed()
        self.udp_ports.follow()
        self._follow_tunnels()

    def _bonds_changed(self) -> None:
        if self.lags.follow():
            self.filters.reresolve()

    def _tunnel_ports_changed(self, ports: tuple[int, ...]) -> None:
        for silicon in self.netdevs.silicon.values():
            silicon.pipeline.set_tunnel_ports(ports)

    def _routes_changed(self, _mask: int) -> None:
        self.routes.drain()
        self._follow_tunnels()

    def _follow_tunnels(self) -> None:
        if self.tunnels.changed():
            self.filters.reresolve()

    def _tell_neighbours(self) -> float | None:
        """Tell, when it is time, which neighbours hardware sends to; the seconds to the next time (None: no tunnel)."""
        if not self.tunnels.any:
            return None
        now = time.monotonic_ns()
        due = self._neighbours_told + NEIGHBOURS_NS
        if now >= due:
            since, self._neighbours_told, due = self._neighbours_told, now, now + NEIGHBOURS_NS
            for ifindex, tunnel in used_since(self.filters, since):
                self.tunnels.used(ifindex, tunnel)
        return (due - now) / 1e9

    def start(self) -> None:
        """Bring the NICs up and serve."""
        with self.lock:
            self._restore()
            self.driver.probe_all()
            self.sysfs.start()
            self.server.before_answer = lambda: self._guarded(self._keep)
            self.server.attach(self.selector, listener.lent())
            self.watchers.serve()
            for monitor in self.netdevs.monitors():
                self.selector.register(monitor, selectors.EVENT_READ, lambda _mask: self.netdevs.drain())
            self.selector.register(self.routes.monitor, selectors.EVENT_READ, self._routes_changed)
            self.selector.register(self.kinds.routes, selectors.EVENT_READ, lambda _mask: self.kinds.routes_changed())
            self.selector.register(self._connections.events_fd, selectors.EVENT_READ, self.announcer.pass_on)
            self.selector.register(self.netdevs.wakeup, selectors.EVENT_READ, lambda _mask: None)

    def _restore(self) -> None:
        """Take up what an earlier daemon of this node left. ForeignStateError."""
        if self._driver_state.state is None:
            return
        log.info("taking up the state of an earlier run")
        try:
            self._take_up()
        except (LookupError, ValueError, TypeError, AttributeError, struct.error) as error:
            log.exception("the state cannot be read")
            why = f"the state of the node cannot be read ({type(error).__name__}: {error}): {kept_state.REMEDY}"
            raise kept_state.ForeignStateError(why) from error

    def _take_up(self) -> None:
        assert self._driver_state.state is not None
        self.driver.restore(json.loads(self._driver_state.state))
        with self.ports.together():
            with_qdisc = self.filters.restore({nic.name: nic for nic in self.driver.nics})
            self.ovs.restore(Netns(self.netdevs.node_cookie, self.netdevs.node_fd))
            for ifindex in with_qdisc:
                self.ports.use_tc(ifindex, True)
            self.ports.use_eswitch(self.netdevs.eswitch_ports())
        self._links_changed()
        self.filters.reresolve()

    def _keep(self) -> None:
        """Write the driver's state down when it has changed: before whoever changed it hears of it, who may kill us."""
        if self._kept != self.driver.generation:
            generation = self.driver.generation
            self._driver_state.write(json.dumps(self.driver.snapshot()).encode())
            self._kept = generation

    def run(self) -> None:
        """Serve until :meth:`stop`. After something was done it looks for more for a while before it sleeps: who asks
        much asks soon again, and to be woken takes longer than to answer."""
        look_until = 0
        with self.lock:
            self._guarded(self._tidy)
        while self.running:
            waits = [0 if look_until else self._wait, self._serve_upcalls(), self._serve_samples()]
            events = self.selector.select(min((wait for wait in waits if wait is not None), default=None))
            if not events:
                if not look_until:
                    with self.lock:
                        self._guarded(self._tidy)
                elif time.monotonic_ns() > look_until:
                    look_until = 0
                continue
            with self.ovs.delivery.spare_time.spent():
                for key, mask in events:
                    with self.lock:
                        self._guarded(key.data, mask)
                with self.lock:
                    self._guarded(self._tidy)
            look_until = time.monotonic_ns() + LOOK_NS

    def _serve_upcalls(self) -> float | None:
        """Pass on some packets that wait for Open vSwitch; the seconds to the next time."""
        try:
            with self.lock:
                return self.ovs.serve_upcalls()
        except Exception:
            log.exception("unexpected")
            return None

    def _serve_samples(self) -> float | None:
        """Pass on some samples; the seconds to the next time. Until then, nobody watches for them."""
        wait: float | None = None
        try:
            with self.lock:
                wait = self.psample.serve()
        except Exception:
            log.exception("unexpected")
        if (wait is None) != self._samples_watched:
            self._samples_watched = wait is None
            if wait is None:
                self.selector.register(self._samples.fd, selectors.EVENT_READ, self.psample.came)
            else:
                self.selector.unregister(self._samples.fd)
        return wait

    def _tidy(self) -> None:
        """What is due after each round: following links, writing down what has changed, telling of neighbours, and
        taking connections away whose time is over."""
        if self.netdevs.unsettled:
            self._links_changed()
        self.psample.settle()
        self._keep()
        waits = self._tell_neighbours(), self._sweep(), self.lacp.tick()
        self._wait = min(wait for wait in waits if wait is not None)

    def _sweep(self) -> float:
        """Take out what has expired, when it is time, and look who listens; the seconds to the next time."""
        if self.sweeper.due:
            self.announcer.look()
        return self.sweeper.sweep()

    @staticmethod
    def _guarded(call: Callable[..., object], *arguments: object) -> None:
        """A daemon does not die of one message or one device."""
        try:
            call(*arguments)
        except Exception:
            log.exception("unexpected")

    def stop(self, *_: object) -> None:
        """End :meth:`run`; usable as a signal handler."""
        self.running = False

    def close(self) -> None:
        """Stop serving. The silicon goes on."""
        self.watchers.close()
        self.server.close()
        self.sysfs.stop()


def _hurry() -> None:
    """Take :data:`NICENESS` among the programs of all sessions (sched(7), "The autogroup feature"), where allowed."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        Path("/proc/self/autogroup").write_text(str(NICENESS))


def main() -> int:
    """Run the daemon of the configuration named on the command line."""
    if len(sys.argv) != 2:
        print("usage: python -m asap2.nic.daemon CONFIG.json", file=sys.stderr)
        return 2
    log_to_stderr()
    raise_limit()
    _hurry()
    config = json.loads(Path(sys.argv[1]).read_text())
    try:
        return _serve(config)
    except kept_state.ForeignStateError as error:
        log.error("%s", error)
        kept_state.refuse(Path(config["run_dir"]), str(error))
        return 1


def _serve(config: dict[str, Any]) -> int:
    state = Path(config["run_dir"]) / "state"
    state.mkdir(exist_ok=True)
    kept_state.claim(state)
    daemon = Daemon(config)
    wakeup_read, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup_write)

    def stop(_number: int, _frame: FrameType | None) -> None:
        daemon.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    daemon.selector.register(wakeup_read, selectors.EVENT_READ, lambda _mask: os.read(wakeup_read, 64))
    daemon.start()
    gc.freeze()  # what is there by now stays: no need to look through it again while a packet waits
    gc.set_threshold(20_000, 20, 50)  # nor often through what rules consist of
    (daemon.run_dir / "ready").touch()  # empty, so that there is room for it in a full file system
    daemon.run()
    daemon.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
