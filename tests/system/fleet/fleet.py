# SPDX-License-Identifier: Apache-2.0
"""Eight hypervisors of a lab, reached over SSH by a network of their own from a guest that is the operator's machine.

Ansible, its collection as ``ansible-galaxy`` builds and installs it, and OpenSSH are the real ones. The management
network is a bridge in the operator's namespace with a cable to each node; nothing of it is in the machine's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from asap2.lab.execute import ip
from tests.system.host.conftest import PF, REPOSITORY, Hosts
from tests.system.patience import PATIENCE

NODES = tuple(f"hv{number}" for number in range(1, 9))
OPERATOR = "ops"
VF_ADDRESS = "0000:03:00.3"
"""VF 1 of the PF."""
BIN = Path(sys.executable).parent
SSHD = """
HostKey {key}
PidFile none
AuthorizedKeysFile {authorized}
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""
CONFIGURATION = """
[defaults]
collections_path = {place}/collections
callback_plugins = {callbacks}
callbacks_enabled = results
forks = {forks}
timeout = {patience}
home = {place}/home
local_tmp = {place}/tmp
remote_tmp = /run/ansible
interpreter_python = /usr/bin/python3
[ssh_connection]
pipelining = true
ssh_args = -o ControlMaster=auto -o ControlPersist=60 -o UserKnownHostsFile={place}/known_hosts
control_path_dir = {place}/cp
"""
NIC = {"pf": PF, "vfs": 2, "bridge": "br-int", "representors": True}


def peer(node: str) -> str:
    """The node at the other end of the cable."""
    number = int(node.removeprefix("hv"))
    return f"hv{number + 1 if number % 2 else number - 1}"


def topology() -> str:
    """Nodes with a NIC and a guest each, joined in pairs; and the operator's machine, which gets no VF."""
    lines = []
    for node in NODES:
        number = node.removeprefix("hv")
        lines.append(f'[[node]]\nname = "{node}"\n[[node.nic]]\n')
        lines.append(f'[[guest]]\nname = "vm{number}"\nnode = "{node}"\nvf = 1\n')
        if node < peer(node):
            lines.append(f'[[cable]]\nends = ["{node}/nic0", "{peer(node)}/nic0"]\n')
    lines.append(f'[[guest]]\nname = "{OPERATOR}"\nnode = "{NODES[0]}"\nvf = 7\n')
    return "\n".join(lines)


def settings(place: Path) -> dict[str, str]:
    """The environment of Ansible, which has what it needs in *place*."""
    return {
        "ANSIBLE_CONFIG": str(place / "ansible.cfg"),
        "FLEET_RESULTS": str(place / "results"),
        "LC_ALL": "C.UTF-8",
    }


def install(place: Path) -> None:
    """Ansible's configuration, and the collection as ``ansible-galaxy`` builds and installs it."""
    callbacks = Path(__file__).with_name("callbacks")
    text = CONFIGURATION.format(place=place, callbacks=callbacks, forks=len(NODES), patience=int(PATIENCE))
    (place / "ansible.cfg").write_text(text)
    built = str(place / "asap2-offload-*.tar.gz")
    galaxy = f"{BIN}/ansible-galaxy collection"
    build = f"{galaxy} build {REPOSITORY}/ansible --output-path {place}"
    command = f"{build} && {galaxy} install {built} -p {place}/collections --offline"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=os.environ | settings(place))
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True)
class Play:
    """What came of a playbook: exit status, what it printed, and each task's results."""

    status: int
    output: str
    tasks: list[dict[str, Any]]

    def of(self, module: str) -> dict[str, dict[str, Any]]:
        """By host, the result of the module's last task, with its ``outcome``."""
        return {
            one["host"]: {**one["result"], "outcome": one["outcome"]}
            for one in self.tasks
            if one["action"] == f"asap2.offload.{module}"
        }

    @property
    def touched(self) -> set[str]:
        """The hosts on which something changed."""
        return {one["host"] for one in self.tasks if one["outcome"] == "ok" and one["result"].get("changed")}

    @property
    def failed(self) -> dict[str, dict[str, Any]]:
        """By host, the result that it failed with."""
        return {one["host"]: one["result"] for one in self.tasks if one["outcome"] == "failed"}

    @property
    def hosts(self) -> set[str]:
        """The hosts that any task was tried on."""
        return {one["host"] for one in self.tasks}


class Fleet(Hosts):
    """The lab, its management network, and Ansible in the operator's namespace."""

    place: Path

    @classmethod
    @contextlib.contextmanager
    def managed(cls, place: Path) -> Iterator[Self]:
        """The lab, with what Ansible needs in the directory *place*."""
        with ThreadPoolExecutor() as pool:
            installed = pool.submit(install, place)
            with cls.running(topology()) as fleet:
                fleet.place = place
                fleet._join()
                fleet._serve()
                installed.result()
                fleet.inventory({})
                yield fleet

    def _join(self) -> None:
        operator = self.root / "guests" / OPERATOR / "ns" / "net"
        ip(operator, "link add mgmt type bridge", "address add 192.0.2.100/24 dev mgmt", "link set mgmt up")
        for number, node in enumerate(NODES, 1):
            netns = self.root / "nodes" / node / "ns" / "net"
            ip(operator, f"link add {node} type veth peer name mgmt0 netns {netns}", f"link set {node} master mgmt up")
            ip(netns, f"address add 192.0.2.{number}/24 dev mgmt0", "link set mgmt0 up")

    def _each(self, what: Callable[[int, str], Any]) -> dict[str, Any]:
        """What *what* gives for each node, from its number and name; for several at a time."""
        with ThreadPoolExecutor() as pool:
            return dict(zip(NODES, pool.map(what, range(1, len(NODES) + 1), NODES), strict=True))

    def _serve(self) -> None:
        """An OpenSSH server with a key of its own in each node."""
        for key in ("operator", *NODES):
            generate = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.place / key)]
            subprocess.run(generate, check=True, stdin=subprocess.DEVNULL)

        def serve(number: int, node: str) -> str:
            config = self.place / f"{node}.sshd"
            config.write_text(SSHD.format(key=self.place / node, authorized=self.place / "operator.pub"))
            unlock = "sed -i '/^root:!/s/^root:[^:]*/root:*/' /etc/shadow"
            home = "sed -i '/^root:/s#:/root:#:/run/root:#' /etc/passwd"  # not the machine's own
            start = f"mkdir /run/sshd /run/root && /usr/sbin/sshd -f {config} -o ListenAddress=192.0.2.{number}"
            self.ok(node, f"{unlock} && {home} && {start}")
            return f"192.0.2.{number} {(self.place / f'{node}.pub').read_text()}"

        (self.place / "known_hosts").write_text("".join(self._each(serve).values()))

    def inventory(self, hosts: Mapping[str, Mapping[str, Any]], *, installed: bool = True) -> None:
        """Write the inventory: two groups, and variables of single *hosts*; whether asap2 is installed there."""
        addresses = {node: {"ansible_host": f"192.0.2.{number}"} for number, node in enumerate(NODES, 1)}
        variables = {node: {**addresses[node], **hosts.get(node, {})} for node in NODES}
        every = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.place / "operator"),
            **({"offload_program": str(BIN / "asap2")} if installed else {}),
            "offload_nics": [NIC],
        }
        groups = {
            "first": {"hosts": {node: variables[node] for node in NODES[:4]}},
            "second": {"hosts": {node: variables[node] for node in NODES[4:]}, "vars": {"offload_persist": True}},
        }
        whole = {"compute": {"children": groups, "vars": every}}
        (self.place / "inventory.json").write_text(json.dumps(whole))

    def play(self, playbook: str, *words: str, timeout: float = 5 * PATIENCE) -> Play:
        """Run a playbook of the collection on the operator's machine."""
        results = self.place / "results"
        results.unlink(missing_ok=True)
        command = [str(BIN / "ansible-playbook"), "-i", str(self.place / "inventory.json"), f"asap2.offload.{playbook}"]
        done = subprocess.run(
            [sys.executable, "-m", "asap2.cli.main", "exec", OPERATOR, "--", *command, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.place,
            env=self.environment | settings(self.place),
            timeout=timeout,
        )
        tasks = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
        return Play(done.returncode, done.stdout, tasks)

    def states(self) -> dict[str, Any]:
        """What the nodes are like, by their own programs, but for the management network's device."""
        found = self._each(lambda _, node: self.state(node))
        for state in found.values():
            state["links"].pop("mgmt0")
        return found

    def hand_out(self) -> None:
        """Give each guest its VF."""
        self._each(
            lambda number, node: self.ok(
                node,
                f"ip link set {PF}v1 netns vm{number} && ip -n vm{number} link set {PF}v1 name eth0 && "
                f"ip -n vm{number} address add 10.57.0.{number}/24 dev eth0 && ip -n vm{number} link set eth0 up",
            )
        )

    def take_back(self) -> None:
        """Take the VFs from the guests: bound anew, their devices are the nodes'."""
        driver = "/sys/bus/pci/drivers/mlx5_core"
        again = f"echo {VF_ADDRESS} > {driver}/unbind && echo {VF_ADDRESS} > {driver}/bind"
        self._each(lambda _, node: self.ok(node, again))
