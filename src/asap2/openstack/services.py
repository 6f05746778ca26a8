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

from asap2.errors import Asap2Error
from asap2.lab.child import Child
from asap2.lab.enter import enter, environment
from asap2.openstack.databases import MARIADB
from asap2.openstack.plan import CONTROLLER, CONTROLLER_ADDRESS, DIRECTORY, PORTS, Compute
from asap2.openstack.virt.guest import start_time

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

    def __str__(self) -> str:
        return f"{self.name} on {self.host}"


def services(nodes: Sequence[Compute], packages: Path) -> list[Service]:
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
    for node in nodes:
        found += [compute(node, packages), agent(node, packages)]
    return found


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
    files = ("neutron.conf", "openvswitch_agent.ini")
    command = [f"{packages}/bin/neutron-openvswitch-agent"]
    for name in files:
        command += ["--config-file", f"{node.settings}/{name}"]
    return Service("neutron-openvswitch-agent", node.node, node.host, tuple(command))


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

            def spawn() -> int:
                process = subprocess.Popen(
                    service.command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    env=environment()
                    | {"PYTHONUNBUFFERED": "1", "no_proxy": "*", "NO_PROXY": "*"}
                    | dict(service.variables),
                    start_new_session=True,
                    preexec_fn=lambda: enter(bundle),
                )
                return process.pid

            pid = Child(spawn).result()
        record = self._record(service)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({"pid": pid, "started": start_time(pid)}))

    def stop(self, service: Service, how: int = signal.SIGTERM) -> None:
        """End *service*, its children with it; Asap2Error when it does not run."""
        pid = self.pid(service)
        if not pid:
            raise Asap2Error(f"{service} does not run")
        deadline = time.monotonic() + STOP_SECONDS
        os.killpg(pid, how)
        while start_time(pid) is not None:
            if time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
            time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        self._record(service).unlink(missing_ok=True)

    def pid(self, service: Service) -> int | None:
        """The process id of *service*, if it runs."""
        try:
            record = json.loads(self._record(service).read_text())
        except FileNotFoundError:
            return None
        pid: int = record["pid"]
        return pid if record["started"] is not None and start_time(pid) == record["started"] else None

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
