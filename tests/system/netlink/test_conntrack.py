# SPDX-License-Identifier: Apache-2.0
"""conntrack(8) says of the server's connections what it says of a real kernel's."""

from __future__ import annotations

import re
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.netlink.conftest import Redirected
from tests.system.patience import PATIENCE

RECORDED = Path(__file__).parents[2] / "data" / "conntrack-commands.txt"
_LEFT_OUT = (
    (re.compile(r"^(ipv[46] +\d+ )?(\w+ +\d+) \d+ ", re.MULTILINE), r"\1\2 T "),
    (re.compile(r"<timeout>\d+</timeout>|<id>\d+</id>"), ""),
    (re.compile(r"^cpu=.* insert=(\d+) .*\n", re.MULTILINE), ""),
)
"""What differs from run to run: the seconds left, ids, and which CPU has made which connection."""

_FILES = "dac_override,+dac_read_search"
_WITHOUT_NET_ADMIN = f"setpriv --reuid 65534 --clear-groups --inh-caps -all,+{_FILES} --ambient-caps +{_FILES}".split()


def recorded() -> Iterator[tuple[str, str]]:
    """Each command line, and what was said, with the exit status at the end."""
    _comments, *parts = RECORDED.read_text().split("\n$ ")
    for part in parts:
        command, _newline, said = part.partition("\n")
        yield command, said


def settled(said: str) -> list[str]:
    """The lines in no order, without what differs."""
    for pattern, replacement in _LEFT_OUT:
        said = pattern.sub(replacement, said)
    return sorted(said.strip().splitlines())


@pytest.fixture
def tracked(namespace: Redirected) -> Redirected:
    """A namespace with a server of connections, of which there are none."""
    namespace.start_server(program="conntrack_server")
    return namespace


def test_conntrack_says_what_it_says_on_a_real_kernel(tracked: Redirected) -> None:
    commands = list(recorded())
    assert len(commands) > 30
    end = "end of a command"
    script = "\n".join(f"{command} 2>&1; echo rc $?; echo {end}" for command, _said in commands)
    *found, rest = tracked.run("sh", "-c", script).split(f"{end}\n")
    assert not rest
    for (command, said), ours in zip(commands, found, strict=True):
        assert (command, settled(ours)) == (command, settled(said))


def test_conntrack_hears_of_what_happens(tracked: Redirected) -> None:
    with subprocess.Popen(
        tracked.command("stdbuf", "-oL", "conntrack", "-E"),
        env=tracked.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as listener:
        try:
            assert listener.stdout is not None
            connection = "-s 10.0.0.1 -d 10.0.0.2 -p udp --sport 5 --dport 6"
            heard: list[str] = []
            while not heard:  # it cannot be seen from outside when it listens
                tracked.run("sh", "-c", f"conntrack -I {connection} -t 100; conntrack -D {connection}")
                if select.select([listener.stdout], [], [], 0)[0]:
                    heard.append(listener.stdout.readline())
            tracked.run(
                "sh",
                "-c",
                f"conntrack -I {connection} -t 90; conntrack -U {connection} -m 7; conntrack -D {connection}",
            )
            while not re.match(r" *\[UPDATE\]", heard[-2] if len(heard) > 1 else ""):
                heard.append(listener.stdout.readline())
        finally:
            listener.terminate()
            listener.communicate(timeout=PATIENCE)
    there = "udp 17 90 src=10.0.0.1 dst=10.0.0.2 sport=5 dport=6 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=6 dport=5"
    new, update, destroy = (line.partition(" [USERSPACE]")[0].split() for line in heard[-3:])
    assert new == ["[NEW]", *there.split(), "mark=0"]
    assert update == ["[UPDATE]", *there.split(), "mark=7"]
    assert destroy == ["[DESTROY]", *there.split(), "mark=7"]


def test_others_see_the_kernels_own_connections(tracked: Redirected) -> None:
    """A namespace within the node has none of the node's; a user without privilege gets the kernel's refusal."""
    tracked.run("sh", "-c", "conntrack -I -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 5 --dport 6 -t 100")
    assert tracked.run("sh", "-c", "conntrack -C") == "1\n"
    assert tracked.run("unshare", "--net", "conntrack", "-C") == "0\n"
    said = tracked.run(*_WITHOUT_NET_ADMIN, "conntrack", "-C", code=1)
    assert "you must be root or get CAP_NET_ADMIN" in said


def test_conntrack_shows_what_helpers_expect(namespace: Redirected) -> None:
    namespace.start_server(2, "conntrack_server")
    line = (
        "{} proto=6 src=10.0.0.2 dst=10.0.0.1 sport=0 dport={} mask-src=255.255.255.255 mask-dst=255.255.255.255 "
        "sport=0 dport=65535 master-src=10.0.0.1 master-dst=10.0.0.2 sport=1000 dport=21 class=0 helper=ftp"
    )
    *shown, said = sorted(namespace.run("conntrack", "-L", "expect").splitlines())
    assert shown == [line.format(300, port) for port in (4660, 4661)]
    assert "2 expectations" in said
    assert namespace.run("conntrack", "-C", "expect") == "2\n"
    namespace.run("conntrack", "-F", "expect")
    assert "0 expectations" in namespace.run("conntrack", "-L", "expect")
