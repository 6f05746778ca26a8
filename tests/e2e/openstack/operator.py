# SPDX-License-Identifier: Apache-2.0
"""What an operator does and sees, by the services' REST interfaces, which are faster than the client's start."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from asap2.lab.execute import run
from asap2.lab.namespaces import call_in
from asap2.openstack.cloud import Cloud
from asap2.openstack.plan import CONTROLLER, DIRECTORY, TOKEN, url
from asap2.openstack.services import Service

SECONDS = 90.0
AGENT = "neutron-openvswitch-agent"
SWITCHDEV = {"capabilities": ["switchdev"]}


class RefusedError(Exception):
    """A service refused something; the text is its reason."""


class Operator:
    """Of a cloud that is up."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.nodes = cloud.nodes()
        self.networks: dict[str, str] = {}
        self.image = ""
        self.flavor = ""
        self.untouched: dict[str, Any] = {}

    def prepare(self) -> None:
        """Make image, flavour and networks."""
        image = {"name": "image", "disk_format": "raw", "container_format": "bare", "visibility": "public"}
        self.image = self.call("image", "POST", "/v2/images", image)["id"]
        self.call("image", "PUT", f"/v2/images/{self.image}/file", b"nothing")
        flavor = {"flavor": {"name": "small", "vcpus": 1, "ram": 64, "disk": 1}}
        self.flavor = self.call("compute", "POST", "/v2.1/flavors", flavor)["flavor"]["id"]
        self.network("private", "10.57.0", "vlan", "default", 57)
        self.untouched = self.traces()

    def network(self, name: str, prefix: str, kind: str, physical: str | None, segment: int | None) -> str:
        """Make a network with a subnet of its own; its id."""
        provider = {"network_type": kind, "physical_network": physical, "segmentation_id": segment}
        wanted = {"name": name} | {f"provider:{key}": value for key, value in provider.items() if value is not None}
        made: str = self.call("network", "POST", "/v2.0/networks", {"network": wanted})["network"]["id"]
        subnet = {"network_id": made, "ip_version": 4, "cidr": f"{prefix}.0/24", "gateway_ip": None}
        self.call("network", "POST", "/v2.0/subnets", {"subnet": subnet | {"enable_dhcp": False}})
        self.networks[name] = made
        return made

    def forget_network(self, name: str) -> None:
        """Delete a network that has no ports, if it was made."""
        if made := self.networks.pop(name, None):
            self.call("network", "DELETE", f"/v2.0/networks/{made}")

    def port(
        self, network: str = "private", vnic: str = "direct", profile: Any = SWITCHDEV, **more: Any
    ) -> dict[str, Any]:
        """Make a port."""
        wanted = {"network_id": self.networks[network], "binding:vnic_type": vnic, "binding:profile": profile} | more
        made: dict[str, Any] = self.call("network", "POST", "/v2.0/ports", {"port": wanted})["port"]
        return made

    def security_group(self, name: str) -> str:
        """Make a security group that lets everything out; its id."""
        made: str = self.call("network", "POST", "/v2.0/security-groups", {"security_group": {"name": name}})[
            "security_group"
        ]["id"]
        return made

    def security_rule(self, group: str, protocol: str, port: int | None = None) -> str:
        """Let *protocol* in, of TCP to one *port*; the rule's id."""
        wanted: dict[str, Any] = {"security_group_id": group, "direction": "ingress", "protocol": protocol}
        wanted |= {"port_range_min": port, "port_range_max": port} if port else {}
        made: str = self.call("network", "POST", "/v2.0/security-group-rules", {"security_group_rule": wanted})[
            "security_group_rule"
        ]["id"]
        return made

    def show_port(self, port: dict[str, Any]) -> dict[str, Any]:
        """A port as it is now."""
        shown: dict[str, Any] = self.call("network", "GET", f"/v2.0/ports/{port['id']}")["port"]
        return shown

    def boot(self, name: str, ports: list[dict[str, Any]], node: int | None = 0) -> str:
        """Ask for a server, on a node unless the scheduler is to choose; its id."""
        server = {
            "name": name,
            "imageRef": self.image,
            "flavorRef": self.flavor,
            "networks": [{"port": port["id"]} for port in ports],
        }
        if node is not None:
            server["availability_zone"] = f"nova:{self.nodes[node].host}"
        made: str = self.call("compute", "POST", "/v2.1/servers", {"server": server})["server"]["id"]
        return made

    def server(self, name: str, ports: list[dict[str, Any]], node: int = 0) -> str:
        """Make a server on a node and wait until it is active; its id."""
        made = self.boot(name, ports, node)
        self.wait_for_status(made, "ACTIVE")
        return made

    def show(self, server: str) -> dict[str, Any]:
        """A server as it is now."""
        shown: dict[str, Any] = self.call("compute", "GET", f"/v2.1/servers/{server}")["server"]
        return shown

    def wait_for_status(self, server: str, status: str) -> dict[str, Any]:
        """The server when it has *status* and nothing is being done to it."""

        def reached() -> Any:
            shown = self.show(server)
            if shown["status"] == "ERROR" != status:
                raise AssertionError(f"{shown['name']}: {shown.get('fault')}")
            return shown if shown["status"] == status and not shown["OS-EXT-STS:task_state"] else None

        found: dict[str, Any] = wait_for(reached)
        return found

    def fault(self, server: str) -> str:
        """Why the server could not be made, as the user is told."""
        message: str = self.wait_for_status(server, "ERROR")["fault"]["message"]
        return message

    def action(self, server: str, **what: Any) -> None:
        """Do something to a server."""
        self.call("compute", "POST", f"/v2.1/servers/{server}/action", what)

    def delete(self, server: str) -> None:
        """Delete a server and wait until it is gone."""
        self.call("compute", "DELETE", f"/v2.1/servers/{server}")
        self.wait_gone(server)

    def wait_gone(self, server: str) -> None:
        """Return when there is no such server any more."""

        def gone() -> bool:
            try:
                self.show(server)
            except RefusedError:
                return True
            return False

        wait_for(gone)

    def clear(self) -> None:
        """Delete all servers, and all ports but neutron's own (OVN's networks have one for metadata)."""
        servers = [each["id"] for each in self.call("compute", "GET", "/v2.1/servers")["servers"]]
        for server in servers:
            self.call("compute", "DELETE", f"/v2.1/servers/{server}")
        for server in servers:
            self.wait_gone(server)
        for port in self.call("network", "GET", "/v2.0/ports")["ports"]:
            if not port["device_owner"].startswith("network:"):
                self.call("network", "DELETE", f"/v2.0/ports/{port['id']}")
        # nova forgets to free the VFs of a server that goes while its resource tracker looks, until that looks again
        wait_for(lambda: not self.vfs_given_out())

    def call(self, service: str, method: str, path: str, body: Any = None) -> Any:
        """What the service answers, parsed; RefusedError with its reason when it refuses."""
        binary = isinstance(body, bytes)
        headers = {"X-Auth-Token": TOKEN, "Content-Type": f"application/{'octet-stream' if binary else 'json'}"}
        data = body if binary or body is None else json.dumps(body).encode()
        request = urllib.request.Request(url(service, path), data, headers, method=method)

        def ask() -> tuple[int, str]:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            try:
                with opener.open(request, timeout=60) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()

        status, text = call_in(self.cloud.lab.layout.bundle(CONTROLLER), ask, ["net"])
        if status >= 400:
            raise RefusedError(f"{status}: {text}")
        return json.loads(text) if text else None

    # What is seen from the machines

    def sh(self, where: str, script: str) -> str:
        """The output of a shell script in a node or guest."""
        return run(self.cloud.lab.layout.bundle(where), "bash", "-c", script).strip()

    def representor(self, node: int, port: dict[str, Any]) -> str:
        """The device that Open vSwitch has for *port*."""
        find = f"ovs-vsctl --bare --columns=name find Interface external_ids:iface-id={port['id']}"
        return self.sh(self.nodes[node].node, find)

    def ping(self, name: str, port: dict[str, Any], count: int = 5) -> None:
        """Ping *port*'s address from a guest; nothing may be lost."""
        output = self.sh(name, f"ping -c {count} -i 0.2 -w 20 {address(port)}")
        assert f"{count} received, 0% packet loss" in output, output

    def traces(self) -> dict[str, Any]:
        """What servers could leave behind, on each node and in the services."""
        found: dict[str, Any] = {"ports": len(self.call("network", "GET", "/v2.0/ports")["ports"])}
        claims = self.call("placement", "GET", "/resource_providers")["resource_providers"]
        usages = [
            self.call("placement", "GET", f"/resource_providers/{each['uuid']}/usages")["usages"] for each in claims
        ]
        found["claims"] = sum(sum(usage.values()) for usage in usages)
        for node in self.nodes:
            vfs = re.findall(r"vf \d+ .*link/ether (\S+)", self.sh(node.node, f"ip link show {node.uplink}"))
            filters = "for dev in $(ls /sys/class/net | grep '^eth'); do tc filter show dev $dev ingress; done"
            found[node.host] = {
                "VFs' MACs": vfs,
                "VFs in the node": self.sh(node.node, "ls /sys/class/net | grep -c '^enp.*v[0-9]'"),
                "ports": self.sh(node.node, "ovs-vsctl list-ports br-int | grep -v '^ovn-\\|patch-' || true").split(),
                "rules on representors": self.sh(node.node, filters),
                "network namespaces": self.sh(node.node, "ls /run/netns"),
                "instances": self.sh(node.node, f"ls /run/openstack/state/{node.host}/nova/instances"),
                "guests": self.sh(node.node, "ls /run/openstack-servers"),
            }
        return found

    def vfs_given_out(self) -> list[str]:
        """The PCI addresses of the VFs that nova takes for some server's, by its database."""
        socket = DIRECTORY / "state" / CONTROLLER / "mariadb.socket"
        client = ["mariadb", "--no-defaults", "--user=root", f"--socket={socket}", "--skip-column-names", "nova"]
        query = "SELECT address FROM pci_devices WHERE deleted = 0 AND status IN ('claimed', 'allocated')"
        return run(self.cloud.lab.layout.bundle(CONTROLLER), *client, "--execute", query).split()

    def service(self, name: str, node: int = 0) -> Service:
        """A service of a node."""
        return self.cloud.service(name, self.nodes[node].host)

    @contextmanager
    def without(self, name: str, host: str | None = None) -> Iterator[None]:
        """A service of a host, of the first node when not said, does not run meanwhile; an agent has reported again
        after that, since neutron takes it for alive by an earlier report, and then for dead while it starts."""
        service = self.cloud.service(name, host or self.nodes[0].host)
        self.cloud.processes.stop(service)
        last = self.heartbeat(service.host) if name == AGENT else None
        try:
            yield
        finally:
            self.cloud.start(service)
        if last:
            wait_for(lambda: self.heartbeat(service.host) != last)

    def heartbeat(self, host: str) -> str:
        """When neutron heard of a host's agent last."""
        (agent,) = self.call("network", "GET", f"/v2.0/agents?host={host}")["agents"]
        return str(agent["heartbeat_timestamp"])

    def restart_neutron(self) -> None:
        """Stop and start neutron-server, and wait until it answers."""
        with self.without("neutron-server", CONTROLLER):
            pass

        def answers() -> bool:
            try:
                self.call("network", "GET", "/v2.0/ports")
            except (RefusedError, OSError):
                return False
            return True

        wait_for(answers)

    def agent_is_alive(self, node: int = 0) -> bool:
        """Whether neutron takes a node's agent for alive."""
        agents = self.call("network", "GET", "/v2.0/agents")["agents"]
        return any(each["alive"] for each in agents if each["host"] == self.nodes[node].host)

    def compute_is_up(self, node: int = 0) -> bool:
        """Whether nova takes a node's compute service for alive."""
        path = f"/v2.1/os-services?binary=nova-compute&host={self.nodes[node].host}"
        return all(each["state"] == "up" for each in self.call("compute", "GET", path)["services"])


def address(port: dict[str, Any]) -> str:
    """A port's IPv4 address."""
    found: str = port["fixed_ips"][0]["ip_address"]
    return found


def wait_for(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """What *condition* returns when that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.3)
    return found
