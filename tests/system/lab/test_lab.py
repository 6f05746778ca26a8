# SPDX-License-Identifier: Apache-2.0
"""A lab comes up as its topology says, and goes down leaving nothing, whatever happened to it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asap2.errors import Asap2Error
from asap2.lab.execute import start
from asap2.lab.lab import Lab
from asap2.lab.layout import DEFAULT_ROOT, ROOT_VARIABLE, Layout
from asap2.lab.namespaces import kept_below
from asap2.lab.processes import inside
from asap2.lab.topology import parse
from tests.schemas import answer

from .conftest import STANDIN, Asap2, Machine, asap2_on, sh, wait_for

TOPOLOGY = parse(
    """
    [[node]]
    name = "t-one"
    openvswitch = false
    [[node.nic]]
    [[node]]
    name = "t-two"
    openvswitch = false
    [[node.nic]]
    ports = 2
    [[node.nic]]
    model = "ConnectX-4 Lx"
    [[cable]]
    ends = ["t-one/nic0", "t-two/nic0/p1"]
    [[guest]]
    name = "t-guest"
    node = "t-one"
    vf = 3
    """
)


@pytest.fixture(scope="module")
def up() -> Iterator[Lab]:
    """A lab that is up, for tests that leave it as it is."""
    standing = Lab(Layout(Path(f"/run/t-standing-{os.getpid()}")), [sys.executable, str(STANDIN)])
    standing.up(TOPOLOGY)
    yield standing
    standing.down()


@pytest.fixture
def fresh(lab: Lab) -> Lab:
    """A lab that is up, of the test's own."""
    lab.up(TOPOLOGY)
    return lab


class TestNode:
    """What a program sees inside a node."""

    def test_has_its_own_name(self, up: Lab) -> None:
        assert sh(up, "t-one", "hostname; cat /etc/hostname") == "t-one\nt-one"
        assert sh(up, "t-one", "getent hosts t-one").split() == ["127.0.0.1", "localhost", "t-one"]

    def test_has_only_its_loopback_up(self, up: Lab) -> None:
        assert sh(up, "t-one", "ls /sys/class/net; ip -o link | wc -l") == "lo\n1"
        assert "UP" in sh(up, "t-one", "ip -o link show lo")

    def test_sends_nothing_unasked_from_new_devices(self, up: Lab) -> None:
        script = "ip link add va type veth peer name vb; ip link set va up; ip link set vb up; ip -6 addr show dev va"
        assert sh(up, "t-one", script) == ""
        sh(up, "t-one", "ip link del va")

    def test_keeps_what_it_writes_to_etc_to_itself(self, up: Lab) -> None:
        sh(up, "t-one", "echo hello > /etc/t-lab-file; mkdir /usr/local/t-lab /var/log/t-lab; touch /run/t-lab-file")
        assert sh(up, "t-one", "cat /etc/t-lab-file") == "hello"
        for path in ("/etc/t-lab-file", "/usr/local/t-lab", "/var/log/t-lab", "/run/t-lab-file"):
            assert not Path(path).exists()
            assert sh(up, "t-two", f"test -e {path} || echo absent") == "absent"

    def test_has_a_fresh_database_for_open_vswitch(self, up: Lab) -> None:
        for directory in ("/etc/openvswitch", "/var/lib/openvswitch", "/var/log/openvswitch"):
            assert sh(up, "t-one", f"ls -A {directory}") == ""

    def test_sees_cgroups_but_not_the_lab(self, up: Lab) -> None:
        assert sh(up, "t-one", "ls /sys/fs/cgroup | head -1")
        assert sh(up, "t-one", f"ls -d {up.root} 2>/dev/null || echo hidden") == "hidden"
        assert sh(up, "t-one", "ls -A /run/asap2") == "netlink.sock\nredirect.sock"
        assert sh(up, "t-one", "ls -A /proc/bus/pci") == ""

    def test_loads_the_redirect_library_everywhere(self, up: Lab) -> None:
        assert "/usr/local/lib/asap2/redirect.so" in sh(up, "t-one", "cat /proc/self/maps")
        assert "redirect.so" in sh(up, "t-one", "sudo cat /proc/self/maps")
        assert "redirect.so" not in Path("/proc/self/maps").read_text()

    def test_names_its_guests_for_iproute2(self, up: Lab) -> None:
        assert sh(up, "t-one", "ip netns list") == "t-guest"
        assert sh(up, "t-two", "ip netns list") == ""
        assert sh(up, "t-one", "ip -n t-guest -o link | wc -l") == "1"

    def test_can_make_namespaces_of_its_own(self, up: Lab) -> None:
        script = (
            "ip netns add ns0 && ip netns exec ns0 sh -c 'ip link set lo up; ls /sys/class/net' && ip netns del ns0"
        )
        assert sh(up, "t-one", script) == "lo"

    def test_runs_the_services_of_its_machine_by_its_own_systemctl(self, up: Lab) -> None:
        assert sh(up, "t-one", "systemctl is-active openvswitch || echo $?") == "inactive\n3"
        assert sh(up, "t-one", "systemctl disable openvswitch; systemctl is-enabled openvswitch || true") == (
            "Removed /etc/systemd/system/multi-user.target.wants/openvswitch-switch.service.\ndisabled"
        )
        assert "multi-user.target.wants" in sh(up, "t-one", "systemctl enable openvswitch.service 2>&1")
        assert sh(up, "t-one", "sudo systemctl is-enabled openvswitch-switch") == "enabled"
        refused = sh(up, "t-one", "systemctl start nonsense 2>&1 || echo $?")
        assert refused == "Failed to start nonsense.service: Unit nonsense.service not found.\n5"


class TestSilicon:
    """The namespaces that are the NICs' hardware."""

    def test_are_joined_by_cables(self, up: Lab) -> None:
        one, other = up.layout.silicon("t-one", 0), up.layout.silicon("t-two", 0)
        assert links(one) == {"p0": "UP"}
        assert links(other) == {"p1": "UP"}
        assert links(up.layout.silicon("t-two", 1)) == {}

    def test_carry_jumbo_frames(self, up: Lab) -> None:
        assert all(link["mtu"] >= 9000 for link in link_table(up.layout.silicon("t-one", 0)) if link["ifname"] == "p0")

    def test_have_no_ip(self, up: Lab) -> None:
        output = nsenter(up.layout.silicon("t-one", 0), "address", "show", "dev", "p0")
        assert json.loads(output)[0]["addr_info"] == []


class TestSettings:
    """What a node's daemon is told."""

    def test_name_every_nic(self, up: Lab) -> None:
        directory = up.layout.node("t-two")
        assert json.loads((directory / "daemon.json").read_text()) == {
            "node": "t-two",
            "run_dir": str(directory),
            "connections": 262144,
            "nics": [
                {
                    "name": "nic0",
                    "model": "ConnectX-5",
                    "pci": "0000:03:00.0",
                    "ports": 2,
                    "total_vfs": 8,
                    "rules": 262144,
                    "netns": str(directory / "nics/0/net"),
                },
                {
                    "name": "nic1",
                    "model": "ConnectX-4 Lx",
                    "pci": "0000:04:00.0",
                    "ports": 1,
                    "total_vfs": 8,
                    "rules": 65536,
                    "netns": str(directory / "nics/1/net"),
                },
            ],
            "guests": [],
        }

    def test_come_with_the_places_it_needs(self, up: Lab) -> None:
        directory = up.layout.node("t-one")
        assert (directory / "realsys/class/net/lo").exists()
        assert {"sock", "sys", "state"} <= {path.name for path in directory.iterdir()}
        mounted = Path("/proc/self/mountinfo").read_text()
        assert f"{directory}/bpf " in mounted


class TestGuest:
    """What a program sees inside a guest."""

    def test_has_its_own_name_and_devices(self, up: Lab) -> None:
        assert sh(up, "t-guest", "hostname; ls /sys/class/net; ip -o link | wc -l") == "t-guest\nlo\n1"

    def test_loads_the_redirect_library_too(self, up: Lab) -> None:
        assert "redirect.so" in sh(up, "t-guest", "cat /proc/self/maps")


@contextlib.contextmanager
def namespaces_of(lab: Lab) -> Iterator[set[tuple[int, int]]]:
    """The lab's namespaces, kept while the block runs: else others on this machine might get their numbers."""
    with contextlib.ExitStack() as held:
        files = [held.enter_context(path.open()) for path in kept_below(lab.root)]
        yield {(found.st_dev, found.st_ino) for found in (os.fstat(file.fileno()) for file in files)}


class TestTakingDown:
    """Nothing stays."""

    def test_leaves_the_machine_as_it_was(self, lab: Lab) -> None:
        before = Machine.look(lab.root.name)
        for _ in range(2):
            lab.up(TOPOLOGY)
            assert Machine.look(lab.root.name) != before
            with namespaces_of(lab) as namespaces:
                assert lab.down()
                assert not lab.root.exists()
                assert not list(inside(namespaces))
            assert Machine.look(lab.root.name) == before

    def test_says_when_there_is_nothing(self, lab: Lab) -> None:
        assert not lab.down()

    def test_ends_what_runs_inside_also_in_namespaces_made_there(self, fresh: Lab) -> None:
        bundle = fresh.layout.bundle("t-one")
        processes = [
            start(bundle, ["sleep", "1000"]),
            start(bundle, ["setsid", "unshare", "--net", "--mount", "sleep", "1000"]),
            start(fresh.layout.bundle("t-guest"), ["unshare", "--mount", "sleep", "1000"]),
        ]
        fresh.down()
        assert [process.wait(60) for process in processes] == [-signal.SIGKILL] * 3
        for process in processes:
            process.communicate()

    @pytest.mark.parametrize("victim", ["supervisor", "daemon"])
    def test_works_after_a_kill(self, fresh: Lab, victim: str) -> None:
        with namespaces_of(fresh) as namespaces:
            pids = list(inside(namespaces))
            daemon = int((fresh.layout.node("t-one") / "daemon.pid").read_text())
            assert daemon in pids
            parent = int(Path(f"/proc/{daemon}/stat").read_text().rsplit(")", 1)[1].split()[1])
            os.kill({"supervisor": parent, "daemon": daemon}[victim], signal.SIGKILL)
            fresh.down()
            assert not list(inside(namespaces))
        assert not fresh.root.exists()

    def test_works_when_bringing_up_was_killed_at_any_moment(self, lab: Lab) -> None:
        script = (
            "import sys; from pathlib import Path; from asap2.lab.lab import Lab; from asap2.lab.layout import Layout\n"
            "from asap2.lab.topology import load\n"
            "Lab(Layout(Path(sys.argv[1])), [sys.executable, sys.argv[2]]).up(load(Path(sys.argv[3])))"
        )
        file = Path(__file__).with_name("two.toml")
        before = Machine.look(lab.root.name)
        for moment in range(12):
            command = [sys.executable, "-c", script, str(lab.root), str(STANDIN), str(file)]
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as bringing_up:
                wait_for(lambda: lab.root.exists() or bringing_up.poll() is not None)
                select.select([], [], [], 0.02 * moment)
                bringing_up.kill()
            lab.down()
            assert not lab.root.exists()
            wait_for(lambda: Machine.look(lab.root.name) == before)

    def test_happens_by_itself_when_bringing_up_fails(self, lab: Lab) -> None:
        lab.daemon = [sys.executable, "-c", "import sys; sys.exit('no hardware today')"]
        with pytest.raises(Asap2Error, match=r"the daemon of t-one did not start: no hardware today"):
            lab.up(TOPOLOGY)
        assert not lab.root.exists()


SYS_MOUNTS = "grep -c ' /sys' /proc/self/mountinfo"
"""How many mounts a node has there. Others come and go with what the machine mounts meanwhile."""


class TestSupervision:
    """A daemon that dies is started anew."""

    def test_shows_the_new_daemons_sysfs(self, fresh: Lab) -> None:
        directory = fresh.layout.node("t-one")
        first = int((directory / "daemon.pid").read_text())
        mounts = sh(fresh, "t-one", SYS_MOUNTS)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: int((directory / "daemon.pid").read_text() or first) != first)
        wait_for((directory / "ready").exists)
        wait_for(lambda: sh(fresh, "t-one", "ls /sys/class/net /sys/devices/system/cpu | head -2") != "")
        wait_for(lambda: sh(fresh, "t-one", SYS_MOUNTS) == mounts)


class TestTwoAtOnce:
    """There is one lab at a time."""

    def test_a_second_up_is_refused(self, up: Lab) -> None:
        with pytest.raises(Asap2Error, match=r"up already \(t-one, t-two\); `asap2 --lab \S+ lab down` takes it down"):
            up.up(TOPOLOGY)
        assert sh(up, "t-one", "hostname") == "t-one"

    def test_a_command_at_the_same_time_is_refused(self, lab: Lab) -> None:
        other = Lab(lab.layout)
        other.patience = 0.05
        with lab._locked(), pytest.raises(Asap2Error, match="another asap2 lab command is at work"):
            other.down()


class TestCommands:
    """The commands, as a person types them, on a lab that is up."""

    @pytest.fixture
    def asap2(self, up: Lab) -> Asap2:
        """Runs the command ``asap2`` on that lab."""
        return asap2_on(up.layout)

    def test_exec_passes_the_exit_status_on(self, asap2: Asap2) -> None:
        assert asap2("exec", "t-one", "--", "sh", "-c", "exit 7").returncode == 7
        assert asap2("exec", "t-guest", "hostname").stdout == "t-guest\n"
        assert asap2("exec", "t-one", "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM

    def test_exec_passes_signals_on(self, up: Lab) -> None:
        command = [sys.executable, "-m", "asap2.cli.main", "exec", "t-one", "sh", "-c"]
        script = "trap 'echo got it; exit 3' INT; echo here; while :; do sleep 0.01; done"
        environment = os.environ | {ROOT_VARIABLE: str(up.root)}
        # A job in the background of a script ignores SIGINT, and a shell cannot trap what it ignored from its start.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = subprocess.Popen([*command, script], stdout=subprocess.PIPE, text=True, env=environment)
        finally:
            signal.signal(signal.SIGINT, before)
        with process:
            assert process.stdout
            assert process.stdout.readline() == "here\n"
            process.send_signal(signal.SIGINT)
            assert process.stdout.read() == "got it\n"
        assert process.returncode == 3

    def test_exec_keeps_the_working_directory_where_there_is_one(self, asap2: Asap2) -> None:
        assert asap2("exec", "t-one", "pwd").stdout.strip() == os.getcwd()

    def test_exec_of_an_unknown_name_is_one_sentence_and_status_2(self, asap2: Asap2) -> None:
        done = asap2("exec", "nosuch", "true")
        assert done.stderr == "asap2: the lab has no node or guest nosuch; it has t-guest, t-one, t-two\n"
        assert done.returncode == 2
        assert asap2("exec", "../nodes/t-one", "true").returncode == 2

    def test_exec_of_an_unknown_command_is_as_in_a_shell(self, asap2: Asap2) -> None:
        done = asap2("exec", "t-one", "nosuch-command")
        assert (done.returncode, done.stderr) == (127, "asap2: nosuch-command: No such file or directory\n")

    def test_ls_tells_what_there_is(self, up: Lab, asap2: Asap2) -> None:
        (record,) = answer(asap2("lab", "ls", "--json").stdout)["labs"]
        assert [node["name"] for node in record["nodes"]] == ["t-one", "t-two"]
        assert record["nodes"][0]["daemon"] == int((up.layout.node("t-one") / "daemon.pid").read_text())
        assert [cable["ends"] for cable in record["cables"]] == [["t-one/nic0/p0", "t-two/nic0/p1"]]
        assert (record["state"], record["nodes"][0]["state"]) == ("up", "up")
        assert "t-guest" in asap2("lab", "ls").stdout

    def test_ls_lists_every_lab_by_its_name_and_one_that_is_named_alone(self, up: Lab) -> None:
        other = Lab(Layout(Path(f"{DEFAULT_ROOT}.t-{os.getpid()}")), up.daemon)
        other.up(parse('[[node]]\nname = "t-three"\nopenvswitch = false\n[[node.nic]]'))
        try:
            environment = {key: value for key, value in os.environ.items() if key != ROOT_VARIABLE}
            command = [sys.executable, "-m", "asap2.cli.main", "lab", "ls", "--json"]
            listed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
            names = {lab["name"]: lab["state"] for lab in answer(listed)["labs"]}
            assert names.items() >= {(str(up.root), "up"), (f"t-{os.getpid()}", "up")}
            command += ["--lab", f"t-{os.getpid()}"]
            listed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
            ((node,),) = (lab["nodes"] for lab in answer(listed)["labs"])
            assert (node["name"], node["state"]) == ("t-three", "up")
        finally:
            other.down()


class TestCommandsOnTheirOwn:
    """The commands where no lab is up, or none after them."""

    def test_exec_without_a_lab_is_one_sentence_and_status_2(self, place: Layout, asap2: Asap2) -> None:
        done = asap2("exec", "t-one", "true")
        up = "`asap2 lab up TOPOLOGY` makes one"
        assert done.stderr == f"asap2: there is no t-one: no lab is up as {place.root}; {up}\n"
        assert done.returncode == 2

    def test_ctrl_c_while_a_lab_comes_up_is_silent_and_leaves_none(self, lab: Lab, place: Layout) -> None:
        script = (
            "import sys; from pathlib import Path; from asap2.cli import main; from asap2.lab import lab, node\n"
            "def wait(*_): print('here', flush=True); sys.stdin.read()\n"
            "lab.node.configure = wait\n"
            "lab.Lab.__init__.__defaults__ = (None, [sys.executable, sys.argv[1]], print)\n"
            "sys.exit(main.main(['lab', 'up', sys.argv[2]]))"
        )
        file = Path(__file__).with_name("two.toml")
        command = [sys.executable, "-c", script, str(STANDIN), str(file)]
        before = Machine.look(lab.root.name)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, **pipes, text=True, start_new_session=True) as bringing_up:  # type: ignore[call-overload]
            assert bringing_up.stdout
            for line in bringing_up.stdout:
                if line == "here\n":
                    break
            os.killpg(bringing_up.pid, signal.SIGINT)  # a terminal's Ctrl-C reaches the whole group
            _, said = bringing_up.communicate()
        assert (bringing_up.returncode, said) == (130, "")
        assert not place.root.exists()
        wait_for(lambda: Machine.look(lab.root.name) == before)

    def test_down_twice_is_no_failure(self, fresh: Lab, asap2: Asap2) -> None:
        assert fresh
        assert asap2("lab", "down").returncode == 0
        done = asap2("lab", "down")
        assert (done.returncode, done.stderr) == (0, "no lab is up\n")

    def test_up_of_a_wrong_file_is_status_2(self, asap2: Asap2, tmp_path: Path) -> None:
        (tmp_path / "lab.toml").write_text('[[node]]\nname = "a"\ncolour = "red"\n')
        done = asap2("lab", "up", str(tmp_path / "lab.toml"))
        assert done.returncode == 2
        assert done.stderr == f"asap2: {tmp_path}/lab.toml: node a: colour is not a key that a topology has here\n"


def nsenter(netns: Path, *arguments: str) -> str:
    """The output of ``ip -json ARGUMENTS`` in a network namespace."""
    command = ["nsenter", f"--net={netns}", "ip", "-json", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def link_table(netns: Path) -> list[dict[str, Any]]:
    """The links of a network namespace."""
    table: list[dict[str, Any]] = json.loads(nsenter(netns, "link", "show") or "[]")
    return table


def links(netns: Path) -> dict[str, str]:
    """The links of a network namespace but the loopback, and whether they are up and have carrier."""
    return {
        link["ifname"]: "UP" if {"UP", "LOWER_UP"} <= set(link["flags"]) else "DOWN"
        for link in link_table(netns)
        if link["ifname"] != "lo"
    }
