# SPDX-License-Identifier: Apache-2.0
"""The cloud's services as processes: their commands, starting and stopping one, and whether it runs.

A service runs in the namespaces of the controller or of a node, in a session of its own, and writes to a log there. Its
process id and start time are kept below the cloud's directory, so that any later command finds it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from asap2.errors import Asap2Error
from asap2.lab.child import Child
from asap2.lab.enter import enter, environment, move_in
from asap2.openstack.databases import MARIADB
from asap2.openstack.mechanism import Mechanism
from asap2.openstack.plan import (
    CONTROLLER,
    CONTROLLER_ADDRESS,
    DIRECTORY,
    OVN_TUNNEL,
    PHYSICAL_NETWORK,
    PORTS,
    Compute,
)
from asap2.openstack.virt.guest import start_time
from asap2.ovn import programs

OVN_WAIT_MILLISECONDS = 8000
"""How long a restarted ovn-controller keeps the rules of the last one, until it has computed its own; by default it
begins with none, and packets are lost meanwhile."""
STOP_SECONDS = 10.0
"""How long a service may take to end after SIGTERM; then it is killed."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service: where it runs (a name of the lab), the host it is of in OpenStack, and its command."""

    name: str
    where: str
    host: str
    command: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    pid_files: tuple[str, ...] = ()
    """Of a command that starts daemons and ends: where these write their process ids; the first speaks for all."""

    def __str__(self) -> str:
        return f"{self.name} on {self.host}"


def services(nodes: Sequence[Compute], packages: Path, mechanism: Mechanism = Mechanism.OPENVSWITCH) -> list[Service]:
    """All services of a cloud, in the order of their start; *packages* is the virtual environment of OpenStack's."""
    etc = DIRECTORY / "etc" / CONTROLLER

    def on_controller(name: str, *words: str, variables: Mapping[str, str] | None = None) -> Service:
        return Service(name, CONTROLLER, CONTROLLER, (f"{packages}/bin/{words[0]}", *words[1:]), variables or {})

    nova = ("--config-file", f"{etc}/nova.conf")
    placement = ("placement-api", "--host", CONTROLLER_ADDRESS, "--port", str(PORTS["placement"]))
    found = [
        mariadb(),
        rabbitmq(),
        on_controller("placement", *placement, variables={"OS_PLACEMENT_CONFIG_DIR": str(etc)}),
        on_controller("nova-conductor", "nova-conductor", *nova),
        on_controller(
            "neutron-server",
            "neutron-server",
            *("--config-file", f"{etc}/neutron.conf", "--config-file", f"{etc}/ml2_conf.ini"),
        ),
        on_controller("nova-scheduler", "nova-scheduler", *nova),
        on_controller("nova-api", "nova-api-os-compute", *nova),
        on_controller("glance-api", "glance-api", "--config-file", f"{etc}/glance-api.conf"),
    ]
    if mechanism is Mechanism.OVN:
        found += [ovn_central(), on_controller("nova-api-metadata", "nova-api-metadata", *nova)]
    for node in nodes:
        found.append(compute(node, packages))
        if mechanism is Mechanism.OVN:
            found += [ovn_controller(node), metadata_agent(node, packages)]
        else:
            found.append(agent(node, packages))
    return found


def ovn_central() -> Service:
    """OVN's databases and ovn-northd, which makes logical flows of what neutron writes."""
    script = " && ".join(programs.start_central())
    pid_files = tuple(f"/run/ovn/{name}.pid" for name in ("ovn-northd", "ovnnb_db", "ovnsb_db"))
    return Service("ovn-central", CONTROLLER, CONTROLLER, ("sh", "-c", script), pid_files=pid_files)


def ovn_controller(node: Compute) -> Service:
    """OVN's controller of *node*, which makes OpenFlow rules of logical flows."""
    chassis = programs.Chassis(
        node.host,
        CONTROLLER_ADDRESS,
        node.tunnel_address,
        OVN_TUNNEL,
        mappings={PHYSICAL_NETWORK: node.bridge},
        more={
            "hostname": node.host,
            "ovn-cms-options": "enable-chassis-as-gw",
            "ovn-ofctrl-wait-before-clear": str(OVN_WAIT_MILLISECONDS),
        },
    )
    command = ("sh", "-c", " && ".join(chassis.start()))
    return Service("ovn-controller", node.node, node.host, command, pid_files=("/run/ovn/ovn-controller.pid",))


def mariadb() -> Service:
    """The services' database."""
    state = DIRECTORY / "state" / CONTROLLER
    where = (f"--datadir={state}/mariadb", f"--socket={state}/mariadb.socket", f"--pid-file={state}/mariadb.pid")
    address = (f"--bind-address={CONTROLLER_ADDRESS}", f"--port={PORTS['database']}")
    return Service("mariadb", CONTROLLER, CONTROLLER, (*MARIADB, *where, *address))


def rabbitmq() -> Service:
    """The message broker."""
    state, log = DIRECTORY / "state" / CONTROLLER / "rabbitmq", DIRECTORY / "log" / CONTROLLER
    variables = {
        "HOME": str(state),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_CONFIG_FILE": str(DIRECTORY / "etc" / CONTROLLER / "rabbitmq.conf"),
        "RABBITMQ_NODENAME": f"rabbit@{CONTROLLER}",
        "RABBITMQ_MNESIA_BASE": str(state / "mnesia"),
        "RABBITMQ_LOG_BASE": str(log),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(state / "enabled_plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
    }
    return Service("rabbitmq", CONTROLLER, CONTROLLER, ("/usr/lib/rabbitmq/bin/rabbitmq-server",), variables)


def compute(node: Compute, packages: Path) -> Service:
    """nova-compute of *node*."""
    command = (f"{packages}/bin/nova-compute", "--config-file", f"{node.settings}/nova.conf")
    return Service("nova-compute", node.node, node.host, command)


def agent(node: Compute, packages: Path) -> Service:
    """neutron's Open vSwitch agent of *node*."""
    return _agent(node, packages, "neutron-openvswitch-agent", "openvswitch_agent.ini")


def metadata_agent(node: Compute, packages: Path) -> Service:
    """neutron's agent that brings the servers of *node* nova's metadata, where OVN is the mechanism driver."""
    return _agent(node, packages, "neutron-ovn-metadata-agent", "neutron_ovn_metadata_agent.ini")


def _agent(node: Compute, packages: Path, name: str, file: str) -> Service:
    files = (f"{node.settings}/neutron.conf", f"{node.settings}/{file}")
    command = [f"{packages}/bin/{name}", *(word for path in files for word in ("--config-file", path))]
    return Service(name, node.node, node.host, tuple(command))


class Processes:
    """The services of the cloud whose files are below *directory* in the machine's own tree."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def start(self, service: Service, bundle: Path) -> None:
        """Start *service* in the namespaces of *bundle*; Asap2Error when it runs already."""
        if self.pid(service):
            raise Asap2Error(f"{service} runs already")
        log = self.directory / "log" / service.host
        log.mkdir(parents=True, exist_ok=True)
        (self.directory / "state" / service.host).mkdir(parents=True, exist_ok=True)
        with self.log(service).open("ab") as output:
            pids = Child(lambda: _spawn(service, bundle, output)).result()
        record = self._record(service)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps([{"pid": pid, "started": start_time(pid)} for pid in pids]))

    def stop(self, service: Service, how: int = signal.SIGTERM) -> None:
        """End *service*, its children with it; Asap2Error when it does not run."""
        if not self.pid(service):
            raise Asap2Error(f"{service} does not run")
        for pid in self._pids(service):
            _end(pid, how)
        self._record(service).unlink(missing_ok=True)

    def pid(self, service: Service) -> int | None:
        """The process id of *service*, if it runs."""
        pids = self._pids(service)
        return pids[0] if pids else None

    def _pids(self, service: Service) -> list[int]:
        """Those of its processes that were recorded and run; none when the first does not."""
        try:
            records = json.loads(self._record(service).read_text())
        except FileNotFoundError:
            return []
        alive: list[int] = [
            one["pid"] for one in records if one["started"] is not None and start_time(one["pid"]) == one["started"]
        ]
        return alive if alive and alive[0] == records[0]["pid"] else []

    def log(self, service: Service) -> Path:
        """Where *service* writes what it says."""
        return self.directory / "log" / service.host / f"{service.name}.out"

    def last_words(self, service: Service) -> str:
        """What tells best why *service* has ended: the last error in its logs, or the last line it wrote."""
        lines: list[str] = []
        for path in (self.log(service), self.log(service).with_suffix(".log")):
            with contextlib.suppress(FileNotFoundError):
                lines += path.read_text(errors="replace").splitlines()
        errors = [line.split(" ERROR ", 1)[1] for line in lines if re.search(r" ERROR \S+ \S", line)]
        said = [line.strip() for line in errors or lines if line.strip()]
        return said[-1] if said else "it said nothing"

    def _record(self, service: Service) -> Path:
        return self.directory / "processes" / f"{service.host}.{service.name}.json"


def _spawn(service: Service, bundle: Path, output: IO[bytes]) -> list[int]:
    """Start *service* in the namespaces of *bundle*; the ids of its processes."""
    process = subprocess.Popen(
        service.command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        env=environment() | {"PYTHONUNBUFFERED": "1", "no_proxy": "*", "NO_PROXY": "*"} | dict(service.variables),
        start_new_session=True,
        preexec_fn=lambda: move_in(bundle),
    )
    if not service.pid_files:
        return [process.pid]
    if process.wait():
        raise Asap2Error(f"{service} does not start: exit status {process.returncode}")
    enter(bundle, ["mnt"])
    return [int(Path(path).read_text()) for path in service.pid_files]


def _end(pid: int, how: int) -> None:
    """Send the process group of *pid* a signal and kill what is left of it in the end: a daemon's monitor, too."""
    deadline = time.monotonic() + STOP_SECONDS
    with contextlib.suppress(ProcessLookupError):
        group = os.getpgid(pid)
        os.killpg(group, how)
        while start_time(pid) is not None:
            if time.monotonic() > deadline:
                os.killpg(group, signal.SIGKILL)
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)
