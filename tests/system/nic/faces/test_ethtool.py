# SPDX-License-Identifier: Apache-2.0
"""ethtool(8) in a node."""

from __future__ import annotations

import os

import pytest

from tests.system.nic.faces.emulated_node import Node, NodeMaker

PF = "enp3s0f0"


@pytest.fixture
def switchdev(node: Node) -> Node:
    """A node with one VF and its representor."""
    node.run(f"echo 1 > /sys/class/net/{PF}/device/sriov_numvfs")
    node.tell(mode="switchdev")
    return node


@pytest.fixture(scope="module")
def still(make_node: NodeMaker) -> Node:
    """The same, for the tests that change nothing."""
    node = make_node()
    node.run(f"echo 1 > /sys/class/net/{PF}/device/sriov_numvfs")
    node.tell(mode="switchdev")
    return node


def offload(node: Node, name: str) -> str:
    return node.run(f"ethtool -k {name} | grep hw-tc-offload")


def test_hw_tc_offload_is_turned_on_without_a_word(switchdev: Node) -> None:
    assert offload(switchdev, PF) == "hw-tc-offload: off\n"
    assert switchdev.run(f"ethtool -K {PF} hw-tc-offload on") == ""
    assert offload(switchdev, PF) == "hw-tc-offload: on\n"
    assert switchdev.run(f"ethtool -K {PF} hw-tc-offload on") == ""
    assert switchdev.tell(state=True)["nic0"][0]["hw_tc_offload"] == {"uplink": True}


def test_representors_have_a_setting_each(switchdev: Node) -> None:
    assert offload(switchdev, "eth0") == "hw-tc-offload: on\n"
    assert switchdev.run("ethtool -K eth0 hw-tc-offload off") == ""
    assert offload(switchdev, "eth0") == "hw-tc-offload: off\n"
    assert switchdev.tell(state=True)["nic0"][0]["hw_tc_offload"] == {"rep0": False}


def test_it_stays_on_while_rules_are_offloaded(switchdev: Node) -> None:
    switchdev.run(f"ethtool -K {PF} hw-tc-offload on")
    switchdev.tell(rules=1)
    done = switchdev.try_(f"ethtool -K {PF} hw-tc-offload off")
    assert (done.returncode, done.stderr) == (1, "Could not change any device features\n")
    assert done.stdout == "Actual changes:\nhw-tc-offload: on [requested off]\n"
    assert offload(switchdev, PF) == "hw-tc-offload: on\n"


def test_a_vf_can_have_it_too_and_other_devices_cannot(switchdev: Node) -> None:
    assert switchdev.run(f"ethtool -K {PF}v0 hw-tc-offload on") == ""
    assert offload(switchdev, f"{PF}v0") == "hw-tc-offload: on\n"
    assert offload(switchdev, "lo") == "hw-tc-offload: off [fixed]\n"
    assert switchdev.fail("ethtool -K lo hw-tc-offload on") == "Could not change any device features\n"


def test_other_features_are_the_kernels_in_the_same_request_too(switchdev: Node) -> None:
    switchdev.run(f"ethtool -K {PF} hw-tc-offload on gso off")
    shown = switchdev.run(f"ethtool -k {PF}")
    assert "hw-tc-offload: on\n" in shown
    assert "generic-segmentation-offload: off\n" in shown
    changed = switchdev.run(f"ethtool -K {PF} hw-tc-offload off tx off")
    assert "hw-tc-offload: off\n" in changed
    assert "tx-tcp-segmentation: off [not requested]\n" in changed
    assert "tx-checksumming: off\n" in switchdev.run(f"ethtool -k {PF}")


def test_json(switchdev: Node) -> None:
    shown = switchdev.run("ethtool --json -k eth0 | tr -d ' \n'")
    assert '"hw-tc-offload":{"active":true,"fixed":false,"requested":true}' in shown


def test_a_device_that_is_not(node: Node) -> None:
    assert node.fail("ethtool -K nothing hw-tc-offload on").endswith("netlink error: No such device\n")
    assert node.fail("ethtool -i nothing") == "Cannot get driver information: No such device\n"


@pytest.mark.parametrize(
    ("name", "driver", "firmware", "bus"),
    [
        (PF, "mlx5_core", "16.35.4030 (MT_0000000012)", "0000:03:00.0"),
        ("eth0", "mlx5e_rep", "16.35.4030 (MT_0000000012)", "0000:03:00.0"),
        (f"{PF}v0", "mlx5_core", "16.35.4030 (MT_0000000012)", "0000:03:00.2"),
        ("br0", "openvswitch", "", ""),
    ],
)
def test_driver_information(switchdev: Node, name: str, driver: str, firmware: str, bus: str) -> None:
    switchdev.tell(internal="br0")
    lines = switchdev.run(f"ethtool -i {name}").splitlines()
    assert lines[:5] == [
        f"driver: {driver}",
        f"version: {os.uname().release}",
        f"firmware-version: {firmware}",
        "expansion-rom-version: ",
        f"bus-info: {bus}",
    ]


def test_the_permanent_address_is_the_factorys(node: Node) -> None:
    factory = node.run(f"cat /sys/class/net/{PF}/address")
    node.run(f"ip link set {PF} address 02:00:00:00:00:01")
    assert node.run(f"ethtool -P {PF}") == f"Permanent address: {factory}"


def test_who_monitors_is_told_of_the_feature(switchdev: Node) -> None:
    switchdev.run("ethtool -K eth0 hw-tc-offload off")
    with switchdev.start("exec stdbuf -oL ethtool --monitor") as monitor:
        assert monitor.stdout
        assert monitor.stdout.readline() == "listening...\n"
        line = monitor.stdout.readline

        def told(start: str) -> str:
            while not (said := line()).startswith(start):
                assert said
            return said

        switchdev.run(f"ethtool -K {PF} hw-tc-offload on")
        assert told("hw-tc-offload") == "hw-tc-offload: on\n"
        switchdev.run(f"ethtool -K {PF} gso off")  # the kernel tells of this one, and knows nothing of ours
        assert told("hw-tc-offload") == "hw-tc-offload: on\n"
        switchdev.run("ethtool -K eth0 gso off")
        assert told("hw-tc-offload") == "hw-tc-offload: off\n"
        switchdev.run(f"ethtool -G {PF} rx 512; ethtool -C eth0 adaptive-rx off rx-usecs 5")
        assert told(f"Ring parameters for {PF}")
        assert told("rx-usecs:") == "rx-usecs: 5\n"


@pytest.mark.parametrize(
    ("command", "pf", "vf", "representor"),
    [
        ("{} | grep -c Speed", "1", "1", "0"),
        ("-g {} | grep -m1 -A9 Current | grep ^RX:", "RX:\t\t1024", "RX:\t\t1024", "RX:\t\t256"),
        ("-l {} | grep Combined | tail -1", "Combined:\t2", "Combined:\t2", "Combined:\t1"),
        ("-a {} | grep ^RX:", "RX:\t\ton", "RX:\t\toff", NO := "Operation not supported"),
        ("-c {} | grep ^Adaptive", *["Adaptive RX: on  TX: on"] * 3),
        ("--show-priv-flags {} | grep -c :", "9", "9", NO),
        ("--show-fec {} | grep Active", "Active FEC encoding: RS", NO, NO),
        ("--show-tunnels {}", "Types: none (static entries)", NO, NO),
        ("-n {} | head -1", "2 RX rings available", "2 RX rings available", NO),
        ("-n {} rx-flow-hash udp6 | grep -c L4", "2", "2", NO),
        ("-N {} flow-type tcp4 dst-port 80 action 0", *["rmgr: Cannot insert RX class rule: " + NO] * 2, NO),
        ("-f {} firmware", *["Flashing failed: " + NO] * 3),
        ("-S {} | grep -c _phy", "42", "42", "0"),
        ("-S {} | grep -c rx_vport_unicast", "2", "2", "0"),
        ("-S {} | grep -c peer_ifindex", "0", "0", "0"),
        ("--show-eee {}", NO, NO, NO),
        ("-x {} | head -2", *[f"with {os.cpu_count()} RX ring(s):\n    0:      0"] * 2, NO),
    ],
)
def test_each_netdev_tells_what_mlx5s_does(still: Node, command: str, pf: str, vf: str, representor: str) -> None:
    for name, expected in ((PF, pf), (f"{PF}v0", vf), ("eth0", representor)):
        done = still.try_(f"ethtool {command.format(name)}".replace("Combined:\t2", f"Combined:\t{os.cpu_count()}"))
        expected = expected.replace("\t2", f"\t{os.cpu_count()}").replace("2 RX", f"{os.cpu_count()} RX")
        assert expected in done.stdout + done.stderr, name


def test_dumps_have_every_netdev_once(still: Node) -> None:
    asked = still.run("ethtool -l '*' | grep parameters")
    assert sorted(asked.split()) == sorted(
        f"Channel parameters for {name}:".split()[i] for name in (PF, f"{PF}v0", "eth0") for i in range(4)
    )


def test_what_is_set_stays_set_and_what_is_wrong_is_refused(switchdev: Node) -> None:
    switchdev.run(f"ethtool -L {PF}v0 combined 1; ethtool --set-priv-flags {PF} rx_cqe_compress on")
    assert "rx_cqe_compress    : on" in switchdev.run(f"ethtool --show-priv-flags {PF}")
    assert "ring size exceeds maximum" in switchdev.fail(f"ethtool -G {PF} rx 9000")
    assert "Operation not supported" in switchdev.fail("ethtool -A eth0 rx on")
    assert "rx1_packets" not in switchdev.run(f"ethtool -S {PF}v0")
    assert switchdev.tell(state=True)["nic0"][0]["settings"]["uplink"]["flag_rx_cqe_compress"] == 1


def test_old_programs_are_told_the_same_by_ioctl(still: Node) -> None:
    asked = """python3 -c '
import ctypes, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
some = socket.socket()
def asked(name, command, size):
    buffer = ctypes.create_string_buffer(struct.pack("=I", command), size)
    request = ctypes.create_string_buffer(struct.pack("16sP", name.encode(), ctypes.addressof(buffer)), 40)
    return libc.ioctl(some.fileno(), 0x8946, request) and ctypes.get_errno(), buffer.raw
for name in sys.argv[1:]:
    number, settings = asked(name, 1, 44)
    print(number, struct.unpack_from("=H", settings, 12)[0] | struct.unpack_from("=H", settings, 28)[0] << 16)
    print(struct.unpack_from("=9I", asked(name, 0x10, 36)[1])[5], asked(name, 0x12, 16)[0])
' """
    lines = still.run(f"{asked} {PF} {PF}v0 eth0").splitlines()
    assert lines == ["0 4294967295", "1024 0", "0 4294967295", "1024 0", "95 0", "256 95"]


def test_old_programs_set_the_same_by_ioctl(switchdev: Node) -> None:
    asked = """python3 -c '
import ctypes, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
some = socket.socket()
def asked(name, *words):
    buffer = ctypes.create_string_buffer(struct.pack(f"={len(words)}I", *words), 4 * len(words))
    request = ctypes.create_string_buffer(struct.pack("16sP", name.encode(), ctypes.addressof(buffer)), 40)
    return libc.ioctl(some.fileno(), 0x8946, request) and ctypes.get_errno()
pf = sys.argv[1]
print(asked(pf, 0x11, 0, 0, 0, 0, 512, 0, 0, 1000), asked(pf, 0x11, 0, 0, 0, 0, 9000, 0, 0, 64))
print(asked(pf, 0x3D, 0, 0, 0, 0, 0, 0, 0, 1), asked(pf, 0x3D, 0, 0, 0, 0, 0, 0, 0, 999))
print(asked(pf, 0x13, 0, 0, 1), asked("eth0", 0x13, 0, 0, 1))
print(asked(pf, 0xF, 16, *[0] * 21), asked(pf, 0xF, 16, 0, 1, *[0] * 19))
print(asked(pf, 0x28, 1), asked(pf, 0x28, 1 << 20))
' """
    lines = switchdev.run(asked + PF).splitlines()
    assert lines == ["0 22", "0 22", "0 95", "0 95", "0 22"]
    rings = switchdev.run(f"ethtool -g {PF}").split("Current")[1].split()
    assert (rings[rings.index("RX:") + 1], rings[rings.index("TX:") + 1]) == ("512", "1024")
    assert "rx-usecs: 16" in switchdev.run(f"ethtool -c {PF}")
    flags = switchdev.run(f"ethtool --show-priv-flags {PF}").splitlines()[1:]
    assert [flag.split(":")[1].strip() for flag in flags] == ["on", *["off"] * 7]


def test_receive_hashing_can_be_set(switchdev: Node) -> None:
    key = ":".join(["00"] * 39 + ["ff"])
    assert switchdev.run(f"ethtool -X {PF} equal 1 hkey {key} hfunc xor") == ""
    shown = switchdev.run(f"ethtool -x {PF}")
    assert "    0:      0     0     0     0     0     0     0     0\n" in shown
    assert f"\n{key}\n" in shown
    assert "    toeplitz: off\n    xor: on\n" in shown
    assert switchdev.fail(f"ethtool -X {PF} equal 4096").endswith("Invalid argument\n")
    assert switchdev.fail("ethtool -X eth0 equal 1").endswith("Operation not supported\n")
    assert switchdev.run(f"ethtool -X {PF} default hfunc toeplitz") == ""
    assert "    toeplitz: on\n    xor: off\n" in switchdev.run(f"ethtool -x {PF}")
