# SPDX-License-Identifier: Apache-2.0
"""Programs that make their system calls themselves find in a node and its guests the NIC that all others find."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asap2.lab.enter import move_in
from asap2.lab.layout import Layout
from asap2.lab.redirect import redirect_own_calls
from tests.system.netlink.static_programs import c_program, go_program
from tests.system.offload.labs import Bench, until

TOPOLOGY = """
[[node]]
name = "hv1"
[[node.nic]]
vfs = 4
mode = "switchdev"
[[node.nic]]
vfs = 2

[[guest]]
name = "vm1"
node = "hv1"
nic = "nic0"
vf = 0
mac = "fa:16:3e:00:00:01"
"""
PCI, PF, REPRESENTOR = "0000:03:00.0", "enp3s0f0", "eth1"
LEGACY_PCI, LEGACY_PF, LEGACY_VF = "0000:04:00.0", "enp4s0f0", "0000:04:00.3"
POD = "pod"


@pytest.fixture(scope="module")
def lab() -> Iterator[Bench]:
    with Bench.running(TOPOLOGY) as running:
        yield running


@pytest.fixture(scope="module")
def calls() -> Path:
    return c_program("calls")


@pytest.fixture(scope="module")
def nic() -> Path:
    return go_program("nic")


@pytest.fixture
def pod(lab: Bench) -> Iterator[str]:
    lab.ok("hv1", f"ip netns add {POD}")
    yield f"/run/netns/{POD}"
    lab.ok("hv1", f"ip netns del {POD}")


def go(lab: Bench, program: Path, *words: str, where: str = "hv1") -> Any:
    """What the Go program prints."""
    done = lab.run_words(where, str(program), *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def redirectd_of(lab: Bench) -> list[int]:
    """Its two processes: the one that keeps listeners, and the one that serves them."""
    return [int(word) for word in (lab.root / "nodes/hv1/redirect.lock").read_text().split()]


@pytest.mark.parametrize(
    "case",
    [
        "ways",
        "several",
        "copies",
        "splices",
        "rings",
        "descriptors",
        "times",
        "signals",
        "processes",
        "nested",
        "compat",
    ],
)
def test_calls_do_what_the_kernels_do(lab: Bench, calls: Path, case: str) -> None:
    assert lab.run_words("hv1", str(calls), REPRESENTOR, case).stdout == "ok\n"


def test_a_program_inherits_no_netlink_socket_of_one_that_has_the_library(lab: Bench, calls: Path) -> None:
    opens = "import ctypes, os, sys; assert ctypes.CDLL(None).socket(16, 3, 0) > 2; os.execv(sys.argv[1], sys.argv[1:])"
    assert lab.ok("hv1", f"{sys.executable} -c '{opens}' {calls} {REPRESENTOR} inherited") == "ok\n"


def test_a_caller_has_its_own_privileges(lab: Bench, calls: Path, nic: Path) -> None:
    said = lab.run_words("hv1", str(calls), REPRESENTOR, "refused").stdout.splitlines()
    assert said == ["Operation not supported", "Operation not permitted", "ok"]
    for user in ("setpriv --reuid 1000 --clear-groups", "unshare --user --map-root-user"):
        done = lab.run("hv1", f"{user} {nic} set-mac {PF} 2 02:00:00:00:00:02")
        assert (done.returncode, done.stderr) == (1, "operation not permitted\n"), user
        done = lab.run("hv1", f"{user} ip link set {PF} vf 2 mac 02:00:00:00:00:02")
        assert (done.returncode, done.stderr) == (2, "RTNETLINK answers: Operation not permitted\n"), user
    assert "02:00:00:00:00:02" not in lab.ok("hv1", f"ip link show {PF}")


def test_busybox_sees_the_nic_and_deletes_no_representor(lab: Bench) -> None:
    static = "/bin/busybox"
    assert b"ld-linux" not in Path(static).read_bytes()[:8192], "busybox-static is not installed"
    shown = lab.ok("hv1", f"{static} ip link show")
    assert f"{REPRESENTOR}: <" in shown
    assert "a2far" not in shown
    done = lab.run("hv1", f"{static} ip link del {REPRESENTOR}")
    assert "not supported" in done.stderr
    assert REPRESENTOR in lab.ok("hv1", f"{static} ip link show {REPRESENTOR}")


@pytest.mark.usefixtures("pod")
def test_a_static_program_reads_the_counters_of_proc(lab: Bench) -> None:
    def devices(*inside: str) -> set[str]:
        lines = lab.run_words("hv1", *inside, "/bin/busybox", "cat", "/proc/net/dev").stdout.splitlines()[2:]
        return {line.partition(":")[0].strip() for line in lines}

    assert {PF, REPRESENTOR, LEGACY_PF} <= devices() == set(lab.ok("hv1", "ls /sys/class/net").split())
    assert devices("ip", "netns", "exec", POD) == {"lo"}
    shown = lab.ok("hv1", "cd /proc/net && for file in *; do [ ! -e $file ] || echo $file; done")
    assert sorted(shown.split()) == sorted(lab.ok("hv1", "ls /proc/self/net").split())
    assert lab.ok("hv1", "/bin/busybox cat /proc/net/unix") == lab.ok("hv1", "/bin/busybox cat /proc/self/net/unix")


def test_go_lists_links_with_their_vfs(lab: Bench, nic: Path) -> None:
    links = go(lab, nic, "links")
    vfs = links[PF]["Vfs"]
    assert [vf["ID"] for vf in vfs] == [0, 1, 2, 3]
    assert base64.b64decode(vfs[0]["Mac"]).hex(":") == "fa:16:3e:00:00:01"
    assert {link["Type"] for link in links.values()} == {"device"}
    inside = go(lab, nic, "links", where="vm1")
    assert {name: link["Type"] for name, link in inside.items()} == {"lo": "device", "eth0": "device"}


def test_go_finds_devlink(lab: Bench, nic: Path) -> None:
    found = go(lab, nic, "devlink")
    modes = {device["DeviceName"]: device["Attrs"]["Eswitch"]["Mode"] for device in found["Devices"]}
    assert modes[PCI] == "switchdev"
    assert modes[LEGACY_PCI] == "legacy"
    ports = {port["NetdeviceName"]: port["PortFlavour"] for port in found["Ports"]}
    assert ports[PF] == 0
    assert ports[REPRESENTOR] == 4
    assert b"controller" in lab.ok("hv1", "devlink -j port show").encode()


def test_go_sets_the_eswitch_mode(lab: Bench, nic: Path) -> None:
    assert go(lab, nic, "eswitch", LEGACY_PCI, "switchdev") == "switchdev"
    assert "mode switchdev" in lab.ok("hv1", f"devlink dev eswitch show pci/{LEGACY_PCI}")
    assert go(lab, nic, "eswitch", LEGACY_PCI, "legacy") == "legacy"


def test_go_cannot_delete_a_representor(lab: Bench, nic: Path) -> None:
    done = lab.run_words("hv1", str(nic), "delete", REPRESENTOR)
    assert (done.returncode, done.stderr) == (1, "operation not supported\n")


def test_go_adds_and_lists_flower_filters(lab: Bench, nic: Path) -> None:
    assert go(lab, nic, "flower", REPRESENTOR, "eth2") == ["10.57.0.2 mirred"]


def test_go_asks_by_ethtools_ioctl(lab: Bench, nic: Path) -> None:
    found = go(lab, nic, "ethtool", PF)
    assert (found["Driver"], found["BusInfo"], found["Counts"]) == ("mlx5_core", PCI, False)
    found = go(lab, nic, "ethtool", REPRESENTOR)
    assert (found["Driver"], found["Counts"]) == ("mlx5e_rep", True)


def test_go_asks_on_threads_that_signals_interrupt(lab: Bench, nic: Path) -> None:
    assert go(lab, nic, "threads") is None


def test_a_thread_of_go_asks_in_the_namespace_that_it_has_entered(lab: Bench, nic: Path, pod: str) -> None:
    lab.ok("hv1", f"ip link set {PF}v3 netns {POD}")
    links = go(lab, nic, "netns", pod)
    assert sorted(links) == [f"{PF}v3", "lo"]
    assert links[f"{PF}v3"]["Type"] == "device"
    assert sorted(json.loads(lab.ok("hv1", f"ip netns exec {POD} {nic} links"))) == sorted(links)


def test_go_is_told_of_changes_as_the_nics(lab: Bench, nic: Path) -> None:
    watching = lab.start("hv1", str(nic), "subscribe", REPRESENTOR)
    assert watching.stdout is not None
    assert watching.stdout.readline() == "ready\n"
    lab.ok("hv1", f"ip link set {REPRESENTOR} mtu 1400 && ip link set {REPRESENTOR} mtu 1500")
    output, errors = watching.communicate()
    assert not errors
    assert json.loads(output)["Type"] == "device"


def test_sysfs_is_the_same(lab: Bench, nic: Path) -> None:
    files = [f"/sys/class/net/{REPRESENTOR}/phys_port_name", f"/sys/bus/pci/devices/{PCI}/vendor"]
    files.append(f"/sys/class/net/{PF}/device/sriov_numvfs")
    assert go(lab, nic, "sysfs", *files) == {file: lab.ok("hv1", f"cat {file}") for file in files}


def test_host_device_moves_a_vf_by_its_pci_address(lab: Bench, pod: str) -> None:
    """The plugin of containernetworking-plugins, as Debian has it."""
    address = lab.ok("hv1", f"basename $(readlink /sys/class/net/{PF}v2/device)").strip()
    settings = {"cniVersion": "0.4.0", "name": "n", "type": "host-device", "pciBusID": address}
    variables = f"CNI_CONTAINERID=c CNI_NETNS={pod} CNI_IFNAME=net1 CNI_PATH=/usr/lib/cni"

    def plugin(command: str) -> str:
        return lab.ok(
            "hv1", f"CNI_COMMAND={command} {variables} /usr/lib/cni/host-device <<'END'\n{json.dumps(settings)}\nEND"
        )

    assert json.loads(plugin("ADD"))["interfaces"][0]["name"] == "net1"
    assert "net1" in lab.ok("hv1", f"ip -n {POD} link show")
    plugin("DEL")
    assert f"{PF}v2" in lab.ok("hv1", f"ip link show {PF}v2")


ONE_POD = r"""
name=pod$1 address=10.9.0.$1/24
device=$(basename "$(readlink /sys/class/net/$2v$1/device)")
settings='{"cniVersion": "1.0.0", "name": "n", "type": "host-device", "pciBusID": "'$device'",
  "ipam": {"type": "static", "addresses": [{"address": "'$address'"}]}'
export CNI_CONTAINERID=$name CNI_NETNS=/run/netns/$name CNI_IFNAME=net1 CNI_PATH=/usr/lib/cni
ip netns add $name
trap 'ip netns del $name' EXIT
for round in 1 2; do
  result=$(echo "$settings}" | CNI_COMMAND=ADD $CNI_PATH/host-device)
  echo "$settings, \"prevResult\": $result}" | CNI_COMMAND=CHECK $CNI_PATH/host-device
  ip -n $name -br addr show net1 | grep -qF $address
  echo "$settings}" | CNI_COMMAND=DEL $CNI_PATH/host-device
done
"""


def test_pods_get_their_vfs_and_give_them_back_at_the_same_time(lab: Bench) -> None:
    """With an address that the plugin gives, as multus has it done for several pods."""
    before = lab.ok("hv1", "ip -br link")
    pods = [lab.start("hv1", "sh", "-euc", ONE_POD, "sh", str(vf), PF) for vf in (1, 2, 3)]
    for pod in pods:
        _, errors = pod.communicate()
        assert pod.returncode == 0, errors
    assert lab.ok("hv1", "ip -br link") == before


@pytest.mark.parametrize("mode", ["legacy", "switchdev"])
def test_a_pod_gets_a_vf_as_by_the_sriov_cni_and_gives_it_back(lab: Bench, pod: str, mode: str) -> None:
    program, pf = go_program("sriov"), LEGACY_PF if mode == "legacy" else PF
    vf = lab.ok("hv1", f"basename $(readlink /sys/class/net/{pf}v1/device)").strip()
    tag = ("57", "3") if mode == "legacy" else ("0", "0")  # a switchdev eSwitch has no VLAN of a VF
    mac, rates, legacy_only = "02:00:00:00:05:07", ("10", "1000"), "on" if mode == "legacy" else "off"

    def vf_of() -> dict[str, Any]:
        (shown,) = json.loads(lab.ok("hv1", f"ip -j -d link show {pf}"))
        return next(one for one in shown["vfinfo_list"] if one["vf"] == 1)

    before = vf_of()
    netdev = json.loads(lab.ok("hv1", f"ip -j link show {pf}v1"))
    state = lab.ok("hv1", f"{program} add {vf} {pod} net1 {' '.join((*tag, mac, *rates, legacy_only, legacy_only))}")
    changed = vf_of()
    assert changed["address"] == mac
    assert changed["rate"] == {"max_tx": 1000, "min_tx": 10}
    assert changed["trust"] is (legacy_only == "on")
    assert changed["spoofchk"] is (legacy_only == "on")
    if mode == "legacy":
        assert changed["vlan_list"] == [{"vlan": 57, "qos": 3}]
    (inside,) = json.loads(lab.ok("hv1", f"ip -n {POD} -j link show net1"))
    assert inside["address"] == mac
    assert "UP" in inside["flags"]
    lab.ok("hv1", f"{program} del <<'END'\n{state}\nEND")
    assert vf_of() == before
    after = json.loads(lab.ok("hv1", f"ip -j link show {pf}v1"))
    assert after[0]["address"] == netdev[0]["address"]
    assert after[0]["mtu"] == netdev[0]["mtu"]


def test_a_member_of_devlinks_group_is_told(lab: Bench, calls: Path) -> None:
    waiting = lab.start("hv1", str(calls), PF, "member")
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "ready\n"
    for mode in ("switchdev", "legacy"):
        lab.ok("hv1", f"devlink dev eswitch set pci/{LEGACY_PCI} mode {mode}")
    assert waiting.communicate()[0] == "ok\n"


def test_a_signal_ends_a_program_that_waits(lab: Bench, calls: Path) -> None:
    waiting = lab.start("hv1", str(calls), REPRESENTOR, "monitor")
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "ready\n"
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait() == -signal.SIGTERM
    waiting.communicate()


def test_under_another_listener_the_calls_are_refused(lab: Bench, calls: Path) -> None:
    def begin() -> None:
        move_in(Layout(lab.root).bundle("hv1"))
        redirect_own_calls()

    done = subprocess.run([calls, REPRESENTOR, "sockets"], capture_output=True, text=True, preexec_fn=begin)
    assert done.stdout == "Function not implemented\n"


class TestKills:
    """What is left when redirectd's processes are killed."""

    @pytest.mark.parametrize("which", [0, 1])
    def test_programs_go_on_when_one_is_killed(self, lab: Bench, calls: Path, which: int) -> None:
        asking = lab.start("hv1", str(calls), REPRESENTOR, "by_line", stdin=subprocess.PIPE)
        watching = lab.start("hv1", str(calls), REPRESENTOR, "monitor")
        assert asking.stdin is not None
        assert asking.stdout is not None
        assert watching.stdout is not None
        assert watching.stdout.readline() == "ready\n"
        asking.stdin.write("\n")
        asking.stdin.flush()
        assert asking.stdout.readline() == "ok\n"
        for _ in range(5):
            before = redirectd_of(lab)
            os.kill(before[which], signal.SIGKILL)
            until(lambda: redirectd_of(lab)[which] != before[which])  # noqa: B023
            assert redirectd_of(lab)[1 - which] == before[1 - which]
        asking.stdin.write("\n")
        assert asking.communicate()[0] == "ok\nok\n"
        lab.ok("hv1", f"ip link set {REPRESENTOR} mtu 1400 && ip link set {REPRESENTOR} mtu 1500")
        assert watching.stdout.readline() == "the NIC's\n"
        watching.kill()
        watching.communicate()

    def test_a_request_waits_for_the_next_daemon(self, lab: Bench, calls: Path) -> None:
        asking = lab.start("hv1", str(calls), REPRESENTOR, "by_line", stdin=subprocess.PIPE)
        os.kill(int((lab.root / "nodes/hv1/daemon.pid").read_text()), signal.SIGKILL)
        assert asking.communicate("\n\n")[0] == "ok\nok\nok\n"

    def test_programs_are_refused_when_all_are_killed(self, lab: Bench, calls: Path) -> None:
        asking = lab.start("hv1", "bash", "-c", f"read; {calls} {REPRESENTOR} sockets", stdin=subprocess.PIPE)
        before = redirectd_of(lab)
        for process in before:
            os.kill(process, signal.SIGSTOP)
        for process in before:
            os.kill(process, signal.SIGKILL)
        until(lambda: not set(redirectd_of(lab)) & set(before))
        output, _ = asking.communicate("\n")
        assert output == "Function not implemented\n"
        assert lab.run_words("hv1", str(calls), REPRESENTOR, "ways").stdout == "ok\n"
        assert "programs that they served are refused" in (lab.root / "nodes/hv1/daemon.log").read_text()
