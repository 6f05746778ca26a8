# SPDX-License-Identifier: Apache-2.0
"""Bringing a cloud up on a lab of its own, telling how it does, and taking both down."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from asap2.errors import Asap2Error
from asap2.extras import CHECKOUT, in_checkout
from asap2.lab.child import Child
from asap2.lab.enter import enter
from asap2.lab.execute import ip, run
from asap2.lab.filesystem import View, lay_out
from asap2.lab.lab import Lab
from asap2.lab.namespaces import call_in, create
from asap2.lab.network import quiet_network
from asap2.lab.topology import Topology, parse
from asap2.openstack import settings
from asap2.openstack.mechanism import Mechanism
from asap2.openstack.plan import (
    CLOUD,
    CONTROLLER,
    CONTROLLER_ADDRESS,
    DIRECTORY,
    PORTS,
    SERVERS,
    TOKEN,
    Compute,
    computes,
    url,
)
from asap2.openstack.services import Processes, Service, services
from asap2.ovn import programs
from asap2.syscalls import MS_SHARED, attach_tree, bind, clone_tree, mount

PACKAGES = CHECKOUT / ".venv-openstack"
"""The virtual environment that scripts/setup-openstack makes."""
START_SECONDS = 300.0
"""How long the services of a step may take to be ready: RabbitMQ alone takes more than a minute on a busy machine. One
that ends is reported at once."""
MAX_IDLE = 30000
"""Milliseconds that an unused flow stays, as on the getting-started page."""

CLIENT = """#!/bin/sh
# The client of this cloud, whatever the environment says of other clouds and of proxies.
unset $(env | sed -n 's/^\\(OS_[A-Z_]*\\)=.*/\\1/p')
export no_proxy={address} NO_PROXY={address} OS_CLOUD={cloud}
exec {program} "$@"
"""

Say = Callable[[str], None]


class Cloud:
    """The cloud on the lab that this machine has, or the one that the environment names."""

    def __init__(self, lab: Lab | None = None, say: Say = lambda _: None) -> None:
        self.lab = lab or Lab()
        self.say = say
        self.directory = self.lab.root / "openstack"
        self.processes = Processes(self.directory)

    def up(self, topology: Topology, mechanism: Mechanism = Mechanism.OPENVSWITCH) -> None:
        """Bring the lab of *topology* and the cloud up; when that fails, nothing stays but the services' logs, which
        the error tells the place of."""
        lacking(mechanism)
        nodes = computes(topology)
        with self._step("the lab: nodes, NICs in switchdev mode, Open vSwitch"):
            self.lab.up(topology)
        try:
            with self._step("the controller, the management network, the physical bridges"):
                self._write_files(topology, nodes, mechanism)
                self._make_controller(nodes)
                for node in nodes:
                    self._prepare(node)
            self._start(nodes)
        except Asap2Error as error:
            logs = self._rescue_logs()
            self.lab.down()
            raise Asap2Error(f"{error}; the services' logs are in {logs}") from None
        except BaseException:
            self.lab.down()
            raise

    def down(self) -> bool:
        """Take the cloud and its lab down, whatever state they are in. False when there was none.

        Asap2Error when the lab that is up has no cloud.
        """
        if self.lab.layout.record.exists() and not self.directory.exists():
            raise Asap2Error("the lab that is up has no cloud; `asap2 lab down` takes it down")
        return self.lab.down()

    def describe(self) -> list[dict[str, Any]]:
        """All services: name, host, process id (None where it does not run) and log, as plain data."""
        return [
            {
                "service": service.name,
                "host": service.host,
                "pid": self.processes.pid(service),
                "log": str(self.processes.log(service)),
            }
            for service in self.services()
        ]

    def nodes(self) -> list[Compute]:
        """The compute nodes; Asap2Error when no cloud is up."""
        try:
            return computes(parse((self.directory / "topology.toml").read_text()))
        except FileNotFoundError:
            raise Asap2Error("no cloud is up; `asap2 openstack up` makes one") from None

    def mechanism(self) -> Mechanism:
        """neutron's mechanism driver in the cloud that is up."""
        return Mechanism((self.directory / "mechanism").read_text())

    def services(self) -> list[Service]:
        """The services of the cloud that is up."""
        return services(self.nodes(), PACKAGES, self.mechanism())

    def service(self, name: str, host: str) -> Service:
        """The service *name* of *host*; Asap2Error when there is none."""
        for service in self.services():
            if (service.name, service.host) == (name, host):
                return service
        known = ", ".join(sorted({f"{each.name} {each.host}" for each in self.services()}))
        raise Asap2Error(f"there is no service {name} on {host}; there are: {known}")

    def start(self, service: Service) -> None:
        """Start one service."""
        self.processes.start(service, self._bundle(service.where))

    def _rescue_logs(self) -> str:
        place = tempfile.mkdtemp(prefix="asap2-openstack-")
        if (self.directory / "log").is_dir():
            shutil.copytree(self.directory / "log", place, dirs_exist_ok=True)
        return place

    # Making it

    def _write_files(self, topology: Topology, nodes: list[Compute], mechanism: Mechanism) -> None:
        for path, text in settings.files(nodes, PACKAGES, mechanism).items():
            file = self.directory / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (self.directory / "topology.toml").write_text(topology.source)
        (self.directory / "mechanism").write_text(mechanism)
        shutil.copytree(PACKAGES / "databases", self.directory / "state" / CONTROLLER / "mariadb")
        for host in (CONTROLLER, *(node.host for node in nodes)):
            for name in ("nova", "neutron", "glance", "rabbitmq"):
                (self.directory / "state" / host / name).mkdir(parents=True, exist_ok=True)
            (self.directory / "log" / host).mkdir(parents=True, exist_ok=True)
        servers = self.lab.root / "servers"
        servers.mkdir()
        bind(servers, servers)
        mount("", servers, flags=MS_SHARED)  # what a node mounts there is seen by the lab

    def _make_controller(self, nodes: list[Compute]) -> None:
        bundle = self.lab.root / "controllers" / CONTROLLER / "ns"
        client = CLIENT.format(address=CONTROLLER_ADDRESS, cloud=CLOUD, program=f"{PACKAGES}/bin/openstack")
        view = View(
            hostname=CONTROLLER,
            hidden=self.lab.root,
            files={
                "/usr/local/bin/openstack": (client.encode(), 0o755),
                "/etc/openstack/clouds.yaml": ((self.directory / "etc/controller/clouds.yaml").read_bytes(), 0o644),
            },
            binds={str(DIRECTORY): self.directory},
        )

        def inside() -> None:
            socket.sethostname(CONTROLLER)
            lay_out(view)
            quiet_network()

        create(bundle, ["net", "uts", "mnt"], inside)
        lines = [
            "link set dev lo up",
            "link add name mgmt type bridge",
            f"address add {CONTROLLER_ADDRESS}/24 dev mgmt",
        ]
        ip(bundle / "net", *lines, "link set dev mgmt up")
        for number, node in enumerate(nodes):
            theirs = self._bundle(node.node) / "net"
            port = f"node{number}"
            peer = f"type veth peer name mgmt netns {theirs}"
            ip(bundle / "net", f"link add name {port} {peer}", f"link set dev {port} master mgmt up")
            ip(theirs, f"address add {node.address}/24 dev mgmt", "link set dev mgmt up")

    def _prepare(self, node: Compute) -> None:
        """Do in a node what an operator does before OpenStack comes: the getting-started page's Open vSwitch part."""
        bundle = self._bundle(node.node)
        show(bundle, self.directory, DIRECTORY)
        show(bundle, self.lab.root / "servers", SERVERS)
        for words in (
            "ovs-vsctl set Open_vSwitch . other_config:hw-offload=true",
            "systemctl restart openvswitch-switch",
            f"ovs-vsctl set Open_vSwitch . other_config:max-idle={MAX_IDLE}",
            f"ovs-vsctl add-br {node.bridge}",
            f"ovs-vsctl add-port {node.bridge} {node.uplink}",
            f"ip link set {node.uplink} up",
            f"ip address add {node.tunnel_address}/24 dev {node.bridge}",
            f"ip link set {node.bridge} up",
        ):
            run(bundle, *words.split())

    def _start(self, nodes: list[Compute]) -> None:
        waiting = {service.name: service for service in self.services() if service.host == CONTROLLER}
        on_nodes = [service for service in self.services() if service.host != CONTROLLER]
        mariadb, rabbitmq, ovn = waiting["mariadb"], waiting["rabbitmq"], waiting.get("ovn-central")
        self.start(rabbitmq)
        if ovn:
            with self._step("OVN: its databases and ovn-northd"):
                self.start(ovn)  # neutron-server does not start without the databases
        with self._step("MariaDB"):
            self.start(mariadb)
            self._wait([mariadb], lambda: self._listens(PORTS["database"]))
        metadata = waiting.get("nova-api-metadata")
        for service in waiting.values():
            if service not in (mariadb, rabbitmq, ovn, metadata):
                self.start(service)
        with self._step("RabbitMQ"):
            self._wait([rabbitmq], lambda: self._listens(PORTS["rabbitmq"]))
        for service in on_nodes:
            self.start(service)
        for name, api in (("placement", "placement"), ("glance-api", "image"), ("neutron-server", "network")):
            with self._step(name):
                self._wait([waiting[name]], partial(self._answers, api))
        nova = [waiting[name] for name in ("nova-conductor", "nova-scheduler", "nova-api")]
        with self._step("nova: API, conductor and scheduler"):
            self._wait(nova, lambda: self._answers("compute"))
        hosts = {node.host for node in nodes}
        agent = "ovn-controller" if ovn else "neutron-openvswitch-agent"
        with self._step(f"{agent} on {', '.join(sorted(hosts))}"):
            self._wait(on_nodes, lambda: hosts <= self._agents())
        with self._step(f"nova-compute on {', '.join(sorted(hosts))}"):
            self._wait(on_nodes, lambda: hosts <= self._computes() and hosts <= self._mapped())
        if metadata:  # it asks nova-conductor when it starts, and ends when that does not answer
            with self._step("nova: metadata"):
                self.start(metadata)
                self._wait([metadata], lambda: self._listens(PORTS["metadata"]))

    def _wait(self, needed: list[Service], ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            for service in needed:
                if not self.processes.pid(service):
                    raise Asap2Error(f"{service} has ended: {self.processes.last_words(service)}")
            if time.monotonic() > deadline:
                said = self.processes.last_words(needed[-1])
                raise Asap2Error(f"{needed[-1]} is not ready after {START_SECONDS:g} s; its last words: {said}")
            time.sleep(0.25)

    # Asking it

    def get(self, service: str, path: str) -> Any:
        """What the API of a service of plan.PORTS answers to GET *path*, parsed; OSError when it does not."""
        request = urllib.request.Request(url(service, path), headers={"X-Auth-Token": TOKEN})

        def ask() -> Any:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
                return json.loads(answer.read() or "null")

        return call_in(self._bundle(CONTROLLER), ask, ["net"])

    def _listens(self, port: int) -> bool:
        def connect() -> bool:
            socket.create_connection((CONTROLLER_ADDRESS, port), timeout=2).close()
            return True

        return self._try(connect)

    def _try(self, call: Callable[[], bool]) -> bool:
        try:
            return bool(call_in(self._bundle(CONTROLLER), call, ["net"]))
        except (OSError, RuntimeError):
            return False

    def _answers(self, service: str) -> bool:
        def ask() -> bool:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            try:
                opener.open(url(service, "/"), timeout=5).close()
            except urllib.error.HTTPError as error:
                return error.code < 500
            return True

        return self._try(ask)

    def _agents(self) -> set[str]:
        try:
            found = self.get("network", "/v2.0/agents")["agents"]
        except (OSError, RuntimeError):
            return set()
        return {each["host"] for each in found if each["alive"]}

    def _computes(self) -> set[str]:
        """Hosts whose nova-compute has told that it lives: before that it takes no messages yet, and they are lost."""
        try:
            found = self.get("compute", "/v2.1/os-services?binary=nova-compute")["services"]
        except (OSError, RuntimeError):
            return set()
        return {each["host"] for each in found if each["state"] == "up" and each["updated_at"]}

    def _mapped(self) -> set[str]:
        """Hosts that nova's API knows the cell of: it leaves others out of its list of hypervisors."""
        try:
            found = self.get("compute", "/v2.1/os-hypervisors")["hypervisors"]
        except (OSError, RuntimeError):
            return set()
        return {each["hypervisor_hostname"] for each in found}

    def _bundle(self, name: str) -> Path:
        return self.lab.layout.bundle(name)

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        self.say(f"  … {what}")
        yield
        self.say(f"  ✓ {what} ({time.monotonic() - began:.1f} s)")


def show(bundle: Path, source: Path, target: Path) -> None:
    """Make the directory *source* appear at *target* in the mount namespace of *bundle*."""

    def lay() -> None:
        tree = clone_tree(source)
        enter(bundle, ["mnt"])
        os.makedirs(target, exist_ok=True)
        attach_tree(tree, target)

    Child(lay).result()


def lacking(mechanism: Mechanism = Mechanism.OPENVSWITCH) -> None:
    """Asap2Error when what scripts/setup-openstack installs is not there. What it installs (services with databases and
    a virt driver, in one environment of their own) is no extra of a wheel."""
    if not in_checkout():
        raise Asap2Error(
            "an OpenStack cloud needs a checkout of asap2, in which `make demo-openstack` or `make setup-openstack` "
            "installs the services; `asap2 openstack config` works without"
        )
    if mechanism is Mechanism.OVN:
        programs.lacking()
    for needed in (PACKAGES / "bin/nova-compute", PACKAGES / "databases/neutron", Path("/usr/sbin/rabbitmq-server")):
        if not needed.exists():
            raise Asap2Error(f"OpenStack is not installed ({needed} is missing); `make setup-openstack` installs it")
