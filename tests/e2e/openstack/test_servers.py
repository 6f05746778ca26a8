# SPDX-License-Identifier: Apache-2.0
"""Servers on direct ports: they get VFs, their packets are offloaded, and nothing of them stays."""

from __future__ import annotations

import re
from pathlib import Path

from asap2.lab.namespaces import identity, kept_below
from asap2.lab.processes import inside
from asap2.openstack.cloud import Cloud
from tests.e2e.openstack.operator import Operator, address, wait_for

SIX_GB = 6 << 30


def test_every_service_runs_in_less_than_six_gigabytes(cloud: Cloud) -> None:
    assert all(service["pid"] for service in cloud.describe())
    pids = inside({identity(path) for path in kept_below(cloud.lab.root)})
    used = sum(map(proportional_bytes, pids))
    print(f"{used >> 20} MB")
    assert 0 < used < SIX_GB


def proportional_bytes(pid: int) -> int:
    """The memory of a process, what it shares divided by those who share it (proc(5), smaps_rollup)."""
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) << 10 if found else 0


def test_five_rounds_leave_nothing(operator: Operator) -> None:
    for _ in range(5):
        ports = [operator.port(), operator.port()]
        servers = [operator.boot(f"vm{number}", [port], number) for number, port in enumerate(ports)]
        for server in servers:
            operator.wait_for_status(server, "ACTIVE")
        operator.ping("vm0", ports[1])
        flows = operator.sh(operator.nodes[0].node, "ovs-appctl dpctl/dump-flows type=offloaded")
        assert re.search(rf"src={ports[0]['mac_address']}.*push_vlan\(vid=57", flows)
        assert re.search(rf"dst={ports[0]['mac_address']}.*pop_vlan", flows)
        operator.clear()
        assert operator.traces() == operator.untouched


def test_a_port_is_bound_with_a_vf_that_has_its_mac(operator: Operator) -> None:
    port = operator.port()
    operator.server("vm0", [port])
    bound = operator.show_port(port)
    assert operator.vfs_given_out() == [bound["binding:profile"]["pci_slot"]]
    assert (bound["status"], bound["binding:vif_type"]) == ("ACTIVE", "ovs")
    assert bound["binding:profile"]["pci_slot"] in operator.nodes[0].vlan_vfs
    number = bound["binding:profile"]["vf_num"]
    links = operator.sh(operator.nodes[0].node, f"ip link show {operator.nodes[0].uplink}")
    assert re.search(rf"vf {number} .*{port['mac_address']}", links)
    assert address(port) in operator.sh("vm0", "ip address show eth0")


def test_servers_on_a_vxlan_network_reach_each_other_by_the_eswitch(operator: Operator) -> None:
    if "tunnelled" not in operator.networks:
        operator.network("tunnelled", "10.58.0", "vxlan", None, None)
    ports = [operator.port("tunnelled"), operator.port("tunnelled")]
    for number, port in enumerate(ports):
        operator.server(f"vm{number}", [port], number)
    operator.ping("vm0", ports[1])
    flows = operator.sh(operator.nodes[0].node, "ovs-appctl dpctl/dump-flows -m type=offloaded")
    assert re.search(rf"src={ports[0]['mac_address']}.*set\(tunnel\(tun_id=0x", flows)
    assert re.search(rf"in_port\(vxlan_sys_4789\).*src={ports[1]['mac_address']}", flows)


def test_a_rebooted_server_has_its_port_again(operator: Operator) -> None:
    ports = [operator.port(), operator.port()]
    servers = [operator.server(f"vm{number}", [port], number) for number, port in enumerate(ports)]
    operator.sh("vm0", "ip link set eth0 down")
    operator.action(servers[0], reboot={"type": "HARD"})
    operator.wait_for_status(servers[0], "ACTIVE")
    operator.ping("vm0", ports[1])


def test_a_stopped_server_gives_its_vf_back_until_it_is_started(operator: Operator) -> None:
    ports = [operator.port(), operator.port()]
    servers = [operator.server(f"vm{number}", [port], number) for number, port in enumerate(ports)]
    operator.action(servers[0], **{"os-stop": None})
    operator.wait_for_status(servers[0], "SHUTOFF")
    there = "ls /sys/class/net | grep -c '^enp.*v[0-9]'"
    assert operator.sh(operator.nodes[0].node, there) == str(len(operator.nodes[0].vlan_vfs) * 2)
    operator.action(servers[0], **{"os-start": None})
    operator.wait_for_status(servers[0], "ACTIVE")
    operator.ping("vm0", ports[1])


def test_an_interface_is_attached_and_detached(operator: Operator) -> None:
    # both in one subnet: what the second answers leaves by the first, where port security takes it for spoofed
    first, second = (operator.port(port_security_enabled=False, security_groups=[]) for _ in range(2))
    other = operator.port()
    server = operator.server("vm0", [first])
    operator.server("vm1", [other], 1)
    path = f"/v2.1/servers/{server}/os-interface"
    operator.call("compute", "POST", path, {"interfaceAttachment": {"port_id": second["id"]}})
    wait_for(lambda: operator.show_port(second)["status"] == "ACTIVE")
    assert address(second) in operator.sh("vm0", "ip address show eth1")
    operator.ping("vm1", second)
    operator.call("compute", "DELETE", f"{path}/{second['id']}")
    wait_for(lambda: not operator.show_port(second)["device_id"])
    assert "eth1" not in operator.sh("vm0", "ip -brief link")
    assert operator.representor(0, second) == ""
    operator.ping("vm1", first)


def test_nova_hears_of_a_guest_that_ended(operator: Operator) -> None:
    ports = [operator.port(), operator.port()]
    servers = [operator.server(f"vm{number}", [port], number) for number, port in enumerate(ports)]
    for pid in inside([identity(operator.cloud.lab.layout.bundle("vm0") / "net")]):
        operator.sh(operator.nodes[0].node, f"kill -KILL {pid}")
    operator.wait_for_status(servers[0], "SHUTOFF")
    operator.action(servers[0], **{"os-start": None})
    operator.wait_for_status(servers[0], "ACTIVE")
    operator.ping("vm0", ports[1])
