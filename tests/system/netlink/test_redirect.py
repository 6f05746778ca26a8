# SPDX-License-Identifier: Apache-2.0
"""The redirect library and the server together: programs in all their ways find a kernel that answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.netlink.conftest import HERE, Redirected
from tests.system.patience import PATIENCE


def test_the_reply_is_there_when_send_returns(redirected: Redirected) -> None:
    assert redirected.program("one") == "ok\n"


def test_parent_and_child_both_use_it(redirected: Redirected) -> None:
    assert redirected.program("fork").splitlines() == [
        "before: ok",
        "child: ok on the parent's socket, ok on its own",
        "parent: ok on the shared socket, ok on another",
    ]


def test_threads_do_not_disturb_each_other_and_leave_nothing_open(redirected: Redirected) -> None:
    assert redirected.program("threads").splitlines() == ["wrong: []", "left open: 0"]


def test_it_lives_through_exec(redirected: Redirected) -> None:
    assert redirected.program("exec_") == "ok\n"


def test_a_program_that_closes_all_files_keeps_those_it_opens_then(redirected: Redirected) -> None:
    assert redirected.program("close_all").splitlines() == ["ok", "ok", "files kept: True"]


def test_few_file_descriptors_are_enough(redirected: Redirected) -> None:
    assert redirected.program("few_descriptors") == "ok\n"


def test_a_signal_handler_may_ask_too(redirected: Redirected) -> None:
    assert redirected.program("signals") == "{'ok'}\n"


def test_every_way_to_send_and_replies_look_like_the_kernels(redirected: Redirected) -> None:
    lines = redirected.program("connected").splitlines()
    assert lines[0] == "0"
    assert lines[1:6] == ["True (0, 0) [(0, 0, 0)]"] * 5
    assert lines[6:] == ["(0, 0)", "True", "[Errno 95] Operation not supported"]


def test_messages_between_programs_are_left_alone(redirected: Redirected) -> None:
    assert redirected.program("elsewhere").splitlines() == ["True True", "2"]


def test_many_messages_in_one_call(redirected: Redirected) -> None:
    assert redirected.program("many_messages").splitlines() == ["3 [28, 28, 28]", "3 [0, 0, 0]"]


def test_a_batch_of_ours_and_the_kernels_is_answered_in_order(redirected: Redirected) -> None:
    fine, seen = redirected.program("batch").splitlines()
    assert fine == "True"
    assert [int(seq) for seq, _comma, _rest in (one.partition(",") for one in seen.strip("[()]").split("), ("))] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]
    assert seen.startswith("[(1, False), (2, True), (3, ")
    assert "(4, False), (5, False)" in seen


def test_a_batch_longer_than_one_submission(redirected: Redirected) -> None:
    assert redirected.program("long_batch") == "True True\n"


def test_a_dump_larger_than_the_receive_buffer_is_whole(redirected: Redirected) -> None:
    assert redirected.program("big_dump").splitlines() == ["True True EBUSY", "ok"]


def test_an_abandoned_dump_is_forgotten(redirected: Redirected) -> None:
    assert redirected.program("abandoned_dump") == "ok\n"


@pytest.mark.parametrize(("count", "full"), [(50, False), (5000, True)])
def test_upcalls_reach_the_socket_and_their_sender_knows_which_did_not(
    redirected: Redirected, count: int, full: bool
) -> None:
    assert redirected.program("upcalls", str(count)) == f"True True {full} 1 True\n"


def test_multicast_groups_of_emulated_families(redirected: Redirected) -> None:
    lines = redirected.program("events").splitlines()
    assert lines[0] == "FamilyInfo(id=28672, version=1, groups={'events': 28672})"
    assert lines[1:] == ["(42,)", "nothing", "EINVAL"]


def test_a_server_that_dies_while_it_answers_is_an_error_and_no_hang(redirected: Redirected) -> None:
    lines = redirected.program("death").splitlines()
    refusal = "[Errno 95] Operation not supported"
    assert lines == [f"7 {refusal}", refusal, refusal]


def test_a_new_server_takes_over_memberships_too(redirected: Redirected) -> None:
    with subprocess.Popen(
        redirected.command(sys.executable, HERE / "program.py", "restart"),
        env=redirected.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline() == "ok\n"
        redirected.stop_server()
        program.stdin.write("\n")
        assert program.stdout.readline() == "[Errno 95] Operation not supported deaf\n"
        redirected.start_server()
        program.stdin.write("\n")
        assert program.stdout.readline() == "ok heard\n"
        program.stdin.close()
        assert program.wait(10) == 0


def test_a_stopped_server_holds_up_but_loses_nothing(redirected: Redirected) -> None:
    """As a kernel lock would: the program goes on when the server does."""
    assert redirected.server is not None
    server = int(
        subprocess.run(
            ["pgrep", "-P", str(redirected.server.pid)], stdout=subprocess.PIPE, text=True, check=False
        ).stdout
        or redirected.server.pid
    )
    os.kill(server, signal.SIGSTOP)
    with subprocess.Popen(
        redirected.command(sys.executable, HERE / "program.py", "one"),
        env=redirected.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(0.3)
        os.kill(server, signal.SIGCONT)
        assert program.communicate(timeout=PATIENCE)[0] == "ok\n"


@pytest.mark.parametrize("left", ["a socket that nobody listens at", "nothing"])
def test_without_a_server_links_tc_and_families_are_out_of_reach(redirected: Redirected, left: str) -> None:
    redirected.stop_server()
    if left == "nothing":
        redirected.socket.unlink()
    assert "No such device" in redirected.run("ip", "link", "show", "v0", code=1)
    assert "No such device" in redirected.run("ip", "link", "del", "v0", code=2)
    assert "No such device" in redirected.run("tc", "qdisc", "add", "dev", "v0", "clsact", code=1)
    assert "No such device" in redirected.run("ethtool", "-i", "v0", code=71)
    assert "TCP" not in redirected.run("ethtool", "--show-features", "v0", code=1)
    assert "cache" in redirected.run("ip", "route", "get", "127.0.0.1")  # what was never ours goes on
    redirected.start_server()
    redirected.run("ip", "link", "del", "v0")


def test_who_may_not_reach_the_server_does_not_wait_for_it(redirected: Redirected, tmp_path: Path) -> None:
    """A directory of another user's is closed to root without capabilities."""
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    os.chown(closed, 65534, -1)
    redirected.environment |= {"ASAP2_NETLINK_SOCK": str(closed / "socket"), "ASAP2_NETLINK_WAIT": "900000"}
    assert "No such device" in redirected.run("setpriv", "--bounding-set=-all", "ip", "link", "show", "v0", code=1)


def test_who_asks_before_the_server_is_there_waits_for_it(redirected: Redirected) -> None:
    redirected.stop_server()
    redirected.environment["ASAP2_NETLINK_WAIT"] = "60000"
    with subprocess.Popen(
        redirected.command(sys.executable, HERE / "program.py", "one"),
        env=redirected.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(0.5)
        redirected.start_server()
        assert program.communicate(timeout=PATIENCE)[0] == "ok\n"


@pytest.mark.parametrize("seed", ["1", "2"])
def test_noise_and_damaged_requests_are_survived(redirected: Redirected, seed: str) -> None:
    assert redirected.program("fuzz", seed).endswith("ok\n")
    assert redirected.server is not None
    assert redirected.server.poll() is None


def test_noise_on_the_side_channel_is_survived(redirected: Redirected) -> None:
    assert redirected.program("fuzz_side_channel", "1").endswith("ok\n")


def test_an_unprivileged_user_may_look_but_not_change(redirected: Redirected) -> None:
    prefix = ["setpriv", "--reuid=65534", "--clear-groups", "--regid=65534"]
    output = redirected.run(*prefix, "tc", "filter", "add", "dev", "lo", "ingress", "flower", "action", "drop", code=2)
    assert "Operation not permitted" in output
    assert redirected.run(*prefix, "tc", "filter", "show", "dev", "lo", "ingress") == ""
