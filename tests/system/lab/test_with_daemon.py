# SPDX-License-Identifier: Apache-2.0
"""Labs with the real daemon: NICs as the topology wants them, guests that reach each other, deaths survived."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from asap2.errors import Asap2Error
from asap2.lab.background import Program
from asap2.lab.lab import Lab
from asap2.lab.layout import Layout
from asap2.lab.namespaces import call_in
from asap2.lab.topology import Topology, parse

from .conftest import Machine, sh, wait_for

SIOCSIFNAME = 0x8923
"""netdevice(7)."""
PF = "/sys/class/net/enp3s0f0/device"

LEGACY = """
[[node]]
name = "t-one"
openvswitch = false
[[node.nic]]
vfs = 2

[[node]]
name = "t-two"
openvswitch = false
[[node.nic]]
vfs = 2
ports = 2

[[cable]]
ends = ["t-one/nic0", "t-two/nic0/p1"]

[[guest]]
name = "t-a"
node = "t-one"
vf = 1
mac = "02:00:00:00:00:0a"
address = "10.0.0.1/24"

[[guest]]
name = "t-b"
node = "t-two"
port = 1
vf = 0
device = "net0"
mac = "02:00:00:00:00:0b"
address = "10.0.0.2/24"
"""


def shipped(name: str) -> Topology:
    """A topology that comes with the program."""
    return parse(resources.files("asap2.lab").joinpath("topologies", name).read_text())


@pytest.fixture
def real(place: Layout) -> Lab:
    """A lab, not up yet, with the real daemon."""
    return Lab(place)


@pytest.fixture(scope="module")
def legacy() -> Iterator[Lab]:
    """Two cabled nodes in legacy mode, for tests that leave them as they are."""
    with standing("legacy", parse(LEGACY)) as lab:
        yield lab


@pytest.fixture(scope="module")
def switchdev() -> Iterator[Lab]:
    """A node in switchdev mode with two guests, for tests that leave it as it is."""
    with standing("switchdev", shipped("one-node.toml")) as lab:
        yield lab


@contextlib.contextmanager
def standing(name: str, topology: Topology) -> Iterator[Lab]:
    """A lab with the real daemon."""
    lab = Lab(Layout(Path(f"/run/t-{name}-{os.getpid()}")))
    lab.up(topology)
    try:
        yield lab
    finally:
        lab.down()


def daemon(lab: Lab, node: str) -> int:
    """The process id of a node's daemon."""
    return int((lab.layout.node(node) / "daemon.pid").read_text())


def test_guests_on_vfs_of_two_cabled_nics_in_legacy_mode_reach_each_other(legacy: Lab) -> None:
    assert sh(legacy, "t-one", f"cat {PF}/sriov_numvfs; ls {PF}/net") == "2\nenp3s0f0"
    assert sh(legacy, "t-b", "ls /sys/class/net") == "lo\nnet0"
    assert (
        sh(legacy, "t-b", "cd /sys/class/net/net0 && cat device/vendor device/device speed") == "0x15b3\n0x1018\n100000"
    )
    (function,) = sh(legacy, "t-b", "lspci -D -d 15b3:").splitlines()
    assert f"bus-info: {function.split()[0]}" in sh(legacy, "t-b", "ethtool -i net0")
    assert "0% packet loss" in sh(legacy, "t-a", "ping -q -c 3 -i 0.1 10.0.0.2")


def test_switchdev_nics_come_up_with_representors_and_offload_on(switchdev: Lab) -> None:
    assert "mode switchdev" in sh(switchdev, "hv1", "devlink dev eswitch show pci/0000:03:00.0")
    assert "hw-tc-offload: on" in sh(switchdev, "hv1", "ethtool -k enp3s0f0")
    assert sh(switchdev, "hv1", "cat /sys/class/net/eth*/phys_port_name") == "pf0vf0\npf0vf1\npf0vf2\npf0vf3"
    seen = sh(switchdev, "vm2", "ip -d link show eth0")
    assert "fa:16:3e:00:00:02" in seen
    assert "parentbus pci parentdev 0000:03:00.3" in seen
    assert "veth" not in seen
    assert "mlx5_core" in sh(switchdev, "vm2", "ethtool -i eth0")
    assert sh(switchdev, "hv1", "systemctl is-active openvswitch") == "active"
    assert sh(switchdev, "hv1", "ovs-vsctl get Open_vSwitch . external_ids:rundir") == '"/var/run/openvswitch"'


def test_packets_pass_while_the_daemon_is_dead_and_the_next_one_serves_on(switchdev: Lab) -> None:
    sh(
        switchdev,
        "hv1",
        "ovs-vsctl set Open_vSwitch . other_config:hw-offload=true && systemctl reset-failed openvswitch && "
        "systemctl restart openvswitch",
    )
    sh(
        switchdev,
        "hv1",
        "ovs-vsctl add-br br0; for i in 0 1; do ovs-vsctl add-port br0 eth$i; ip link set eth$i up; done",
    )
    sh(switchdev, "vm1", "ping -q -c 3 -i 0.1 10.57.0.2")
    first = daemon(switchdev, "hv1")
    with Program(switchdev.layout.bundle("vm1"), ["ping", "-i", "0.01", "10.57.0.2"]) as pinging:
        pinging.read_until("icmp_seq=20 ")
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: daemon(switchdev, "hv1") != first and (switchdev.layout.node("hv1") / "ready").exists())
        pinging.read_until("icmp_seq=300 ")
        assert pinging.interrupt() == 0
        assert " 0% packet loss" in pinging.output

    def serves() -> bool:
        try:
            return sh(switchdev, "hv1", f"cat {PF}/sriov_numvfs; devlink dev eswitch show pci/0000:03:00.0")[:1] == "4"
        except Asap2Error:
            return False

    wait_for(serves)


def test_who_asks_while_the_daemon_is_dead_waits_for_the_next(switchdev: Lab) -> None:
    sh(switchdev, "hv1", "tc qdisc add dev eth2 ingress")
    for _ in range(3):
        os.kill(daemon(switchdev, "hv1"), signal.SIGKILL)
        assert "mode switchdev" in sh(switchdev, "hv1", "devlink dev eswitch show pci/0000:03:00.0")
        assert "qdisc ingress ffff:" in sh(switchdev, "hv1", "tc qdisc show dev eth2")
    sh(switchdev, "hv1", "tc qdisc del dev eth2 ingress")


def rename(old: bytes, new: bytes) -> None:
    """Rename a device of this network namespace, as ``ip link set OLD name NEW`` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFNAME, struct.pack("16s16s8x", old, new))


def test_a_guest_may_call_its_device_whatever_the_kernel_lets_it(legacy: Lab) -> None:
    sh(legacy, "t-a", "ip link set eth0 down")
    old = b"eth0"
    for new in (b"\xff\xfe", b"\x1b[31m\x07", b'"a', b"\xc3", b"-x", b"'"):
        call_in(legacy.layout.bundle("t-a"), lambda old=old, new=new: rename(old, new), ["net"])  # type: ignore[misc]
        assert sh(legacy, "t-one", f"cat {PF}/sriov_numvfs") == "2"
        assert "vf 1" in sh(legacy, "t-one", "ip link show enp3s0f0")
        old = new
        call_in(legacy.layout.bundle("t-one"), lambda new=new: rename(b"enp3s0f0v0", new), ["net"])  # type: ignore[misc]
        assert sh(legacy, "t-one", "ls /sys/class/net | wc -l") == "3"
        assert "link/ether" in sh(legacy, "t-one", "ip link show")
        call_in(legacy.layout.bundle("t-one"), lambda new=new: rename(new, b"enp3s0f0v0"), ["net"])  # type: ignore[misc]
    call_in(legacy.layout.bundle("t-a"), lambda: rename(old, b"eth0"), ["net"])
    sh(legacy, "t-a", "ip link set eth0 up")
    assert "Traceback" not in (legacy.layout.node("t-one") / "daemon.log").read_text(errors="replace")


def resize(place: Path, octets: int) -> None:
    """Give a tmpfs another size."""
    subprocess.run(["mount", "-o", f"remount,size={octets}", place], check=True)


def test_in_a_full_file_system_what_cannot_be_kept_is_refused_and_all_else_goes_on(real: Lab, tmp_path: Path) -> None:
    real.up(shipped("one-node.toml"))
    one = "filter {} dev eth0 ingress prio {} protocol ip flower dst_ip 10.{}.{}.1 skip_hw action drop\n"
    batch = tmp_path / "batch"
    batch.write_text("".join(one.format("add", 1, i // 250, i % 250) for i in range(20_000)))
    sh(real, "hv1", "tc qdisc add dev eth0 ingress")
    room = os.statvfs(real.root)
    resize(real.root, (room.f_blocks - room.f_bfree) * room.f_frsize)
    with pytest.raises(Asap2Error, match="No space left on device"):
        sh(real, "hv1", f"tc -batch {batch}")
    count = "tc filter show dev eth0 ingress | grep -c dst_ip"
    there = int(sh(real, "hv1", count))
    assert 500 < there < 20_000
    sh(real, "hv1", "ip link set enp3s0f0 vf 0 mac 02:00:00:00:00:77")  # room for that is there from the start
    first = daemon(real, "hv1")
    os.kill(first, signal.SIGKILL)
    assert int(sh(real, "hv1", count)) == there
    assert daemon(real, "hv1") != first
    assert "02:00:00:00:00:77" in sh(real, "hv1", "ip link show enp3s0f0")
    sh(real, "hv1", "tc filter del dev eth0 ingress prio 1")
    resize(real.root, room.f_blocks * room.f_frsize)
    batch.write_text("".join(one.format("add", 2, i // 250, i % 250) for i in range(5_000)))
    sh(real, "hv1", f"tc -batch {batch}")
    assert int(sh(real, "hv1", count)) == 5_000


def test_a_lab_under_load_goes_down_and_leaves_nothing(real: Lab) -> None:
    before = Machine.look(real.root.name)
    real.up(parse(LEGACY))
    call_in(real.layout.bundle("t-one"), lambda: rename(b"enp3s0f0v0", b'"\xff'), ["net"])
    with (
        Program(real.layout.bundle("t-b"), ["iperf3", "-s"]) as server,
        Program(real.layout.bundle("t-a"), ["sh", "-c", "sleep 0.1; exec iperf3 -c 10.0.0.2 -t 60"]) as client,
        Program(real.layout.bundle("t-one"), ["sh", "-c", "while ls /sys/class/net; do :; done"]) as looking,
    ):
        server.read_until("Server listening")
        client.read_until("connected to")
        looking.read_until("enp3s0f0")
        real.down()
        ends = [program.wait() for program in (server, client, looking)]
        assert ends[0] == ends[2] == -signal.SIGKILL
        assert ends[1] in (-signal.SIGKILL, 1)  # it gives up, with 1, when it sees its server go first
    assert not real.root.exists()
    assert Machine.look(real.root.name) == before
