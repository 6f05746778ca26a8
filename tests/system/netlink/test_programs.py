# SPDX-License-Identifier: Apache-2.0
"""The distribution's own unmodified programs, with the redirect library, find what the server emulates."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asap2.netlink.client import Connection
from asap2.netlink.namespaces import own_namespace_fd, socket_in
from asap2.netlink.tables.link import LINK, RTM_DELLINK, RTNLGRP_LINK
from asap2.netlink.wire import NETLINK_ADD_MEMBERSHIP, NETLINK_ROUTE, SOL_NETLINK, split
from tests.system.netlink.conftest import HERE, NAMESPACE, Redirected
from tests.system.patience import PATIENCE

INNER = f"{NAMESPACE}-inner"
PCI = "pci/0000:03:00.0"


def test_tc_adds_shows_and_deletes_filters(redirected: Redirected) -> None:
    add = ["tc", "filter", "add", "dev", "lo", "ingress", "prio"]
    assert redirected.run(*add, "5", "protocol", "ip", "flower", "dst_ip", "10.0.0.0/8", "action", "drop") == ""
    shown = redirected.run("tc", "-s", "filter", "show", "dev", "lo", "ingress")
    assert "filter protocol ip pref 5 flower" in shown
    assert "dst_ip 10.0.0.0/8" in shown
    assert "gact action drop" in shown
    redirected.run("tc", "filter", "del", "dev", "lo", "ingress")
    assert redirected.run("tc", "filter", "show", "dev", "lo", "ingress") == ""


def test_tc_prints_the_extended_acknowledgement(redirected: Redirected) -> None:
    add = ["tc", "filter", "add", "dev", "lo", "ingress"]
    assert "Warning: toy: not offloaded." in redirected.run(*add, "prio", "7", "flower", "action", "drop")
    refused = redirected.run(*add, "u32", "match", "u32", "0", "0", code=2)
    assert "Error: TC classifier not found." in refused


def test_what_a_handler_passes_is_the_kernels(redirected: Redirected) -> None:
    refused = redirected.run("tc", "filter", "add", "dev", "lo", "ingress", "matchall", "action", "drop", code=2)
    assert "toy" not in refused
    assert "Parent Qdisc doesn't exists" in refused or "Error" in refused
    redirected.run("tc", "qdisc", "add", "dev", "v0", "clsact")
    assert "clsact" in redirected.run("tc", "qdisc", "show", "dev", "v0")


def test_tc_in_batches(redirected: Redirected) -> None:
    rules = redirected.directory / "rules"
    flower = "filter add dev lo ingress prio {} protocol ip flower dst_ip 10.{}.{}.1 action drop\n"
    rules.write_text("".join(flower.format(i % 6 + 1, i // 250, i % 250) for i in range(1000)))
    redirected.run("tc", "-b", rules)
    assert redirected.run("tc", "filter", "show", "dev", "lo", "ingress").count("dst_ip 10.") == 1000


def test_tc_shows_20000_filters_without_loss(redirected: Redirected) -> None:
    redirected.stop_server()
    redirected.start_server(20_000)
    shown = redirected.run("tc", "-s", "filter", "show", "dev", "lo", "ingress")
    assert shown.count("gact action drop") == 20_000
    assert "handle 0x4e20" in shown


def test_ip_shows_links_with_what_the_server_adds(redirected: Redirected) -> None:
    shown = redirected.run("ip", "-d", "link", "show")
    assert [line.split()[-1] for line in shown.splitlines() if "alias toy" in line] == ["lo", "v1", "v0"]
    assert "alias toy lo" in redirected.run("ip", "link", "show", "dev", "lo")
    assert "alias" not in redirected.run("ip", "link", "show", "dev", "v0")
    assert "does not exist" in redirected.run("ip", "link", "show", "dev", "no-such", code=1)


def test_ip_changes_links_and_is_refused_for_vfs(redirected: Redirected) -> None:
    redirected.run("ip", "link", "set", "v0", "mtu", "1400", "up")
    assert "mtu 1400" in redirected.run("ip", "link", "show", "v0")
    redirected.run("ip", "link", "add", "v2", "type", "veth", "peer", "name", "v3")
    redirected.run("ip", "link", "del", "v2")
    refused = redirected.run("ip", "link", "set", "v0", "vf", "3", "mac", "02:00:00:00:00:01", code=2)
    assert "Error: toy: no VF 3 here." in refused


def test_devlink_without_devlink_in_the_kernel(redirected: Redirected) -> None:
    assert redirected.run("devlink", "dev") == f"{PCI}\n"
    assert f"{PCI}: mode legacy" in redirected.run("devlink", "dev", "eswitch", "show", PCI)
    redirected.run("devlink", "dev", "eswitch", "set", PCI, "mode", "switchdev")
    assert f"{PCI}: mode switchdev" in redirected.run("devlink", "dev", "eswitch", "show", PCI)
    redirected.run("devlink", "dev", "eswitch", "set", PCI, "mode", "legacy")
    refused = redirected.run("devlink", "dev", "eswitch", "set", PCI, "mode", "legacy", code=1)
    assert "toy: already in legacy mode" in refused
    assert "Operation not supported" in redirected.run("devlink", "dev", "info", PCI, code=1)


def test_genl_lists_the_kernels_families_and_ours(redirected: Redirected) -> None:
    listed = redirected.run("genl", "ctrl", "list")
    names = [line.split()[1] for line in listed.splitlines() if line.startswith("Name:")]
    assert {"nlctrl", "ethtool", "toy", "devlink"} <= set(names)
    assert len(names) == len(set(names))
    assert "ID: 0x7000  Version: 0x1  header size: 4  max attribs: 3" in redirected.run(
        "genl", "ctrl", "get", "name", "toy"
    )
    assert "ID: 0x10 " in redirected.run("genl", "ctrl", "get", "name", "nlctrl")


def test_ethtool_by_ioctl_and_by_netlink(redirected: Redirected) -> None:
    info = redirected.run("ethtool", "-i", "v0")
    assert "driver: toy_core\nversion: 1.0" in info
    assert "toy" not in redirected.run("ethtool", "-i", "lo", code=71)
    assert "Permission denied" in redirected.run("ethtool", "-i", "refused", code=71)
    assert "toy: features are fixed" in redirected.run("ethtool", "-K", "v0", "tso", "off", code=92)
    assert "rx-checksumming" in redirected.run("ethtool", "-k", "v0")
    assert "Link detected: no" in redirected.run("ethtool", "v0")


@contextmanager
def inner_namespace() -> Iterator[str]:
    """A further namespace, with one end of a veth pair; its other end is in the node's."""
    subprocess.run(["ip", "netns", "add", INNER], check=True)
    try:
        subprocess.run(["ip", "-n", INNER, "link", "set", "lo", "up"], check=True)
        pair = ["link", "add", "outer", "type", "veth", "peer", "name", "inner", "netns", INNER]
        subprocess.run(["ip", "-n", NAMESPACE, *pair], check=True)
        yield INNER
    finally:
        subprocess.run(["ip", "netns", "del", INNER], check=False, stderr=subprocess.DEVNULL)


@contextmanager
def listening_to_links() -> Iterator[Connection]:
    """A connection in the node's namespace that hears of its links."""
    home = own_namespace_fd()
    node = os.open(f"/run/netns/{NAMESPACE}", os.O_RDONLY | os.O_CLOEXEC)
    with Connection(NETLINK_ROUTE, socket_in(node, NETLINK_ROUTE, home)) as connection:
        connection.socket.bind((0, 0))
        connection.socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_LINK)
        yield connection
    os.close(node)
    os.close(home)


def test_programs_in_a_further_namespace_are_served_there(redirected: Redirected) -> None:
    with inner_namespace() as inner:
        for command in (["ip", "netns", "exec", inner, "ip"], ["ip", "-n", inner]):
            shown = redirected.run(*command, "link", "show")
            assert "alias toy inner" in shown
            assert "alias toy outer" not in shown
        redirected.run("ip", "-n", inner, "link", "set", "inner", "up")
        assert "state" in redirected.run("ip", "netns", "exec", inner, "ip", "link", "show", "inner")
        assert redirected.run("ip", "netns", "exec", inner, "devlink", "dev") == f"{PCI}\n"
        assert "driver: toy_core" in redirected.run("ip", "netns", "exec", inner, "ethtool", "-i", "inner")
        redirected.run("tc", "-n", inner, "filter", "add", "dev", "lo", "ingress", "flower", "action", "drop")
        heard = redirected.run("ip", "netns", "exec", inner, sys.executable, HERE / "program.py", "events")
        assert heard.splitlines()[1:] == ["(42,)", "nothing", "EINVAL"]
        assert "flower" in redirected.run("tc", "-n", inner, "filter", "show", "dev", "lo", "ingress")


def test_a_link_moves_into_a_further_namespace_and_back(redirected: Redirected) -> None:
    with inner_namespace() as inner:
        redirected.run("ip", "link", "set", "v1", "netns", inner)
        assert "alias toy v1" in redirected.run("ip", "-n", inner, "link", "show")
        redirected.run("ip", "netns", "exec", inner, "ip", "link", "set", "v1", "netns", NAMESPACE)
        assert "alias toy v1" in redirected.run("ip", "link", "show")


def test_a_large_dump_reaches_a_further_namespace(redirected: Redirected) -> None:
    redirected.stop_server()
    redirected.start_server(3000)
    with inner_namespace() as inner:
        shown = redirected.run("tc", "-n", inner, "filter", "show", "dev", "lo", "ingress")
        assert shown.count("gact action drop") == 3000


def test_the_server_keeps_no_deleted_namespace_alive(redirected: Redirected) -> None:
    """When the last reference goes, the kernel destroys the veth pair: both ends."""
    with inner_namespace() as inner:
        redirected.run("ip", "netns", "exec", inner, "ip", "link", "show")
        redirected.run("ip", "-n", inner, "link", "set", "inner", "up")
        with listening_to_links() as connection:
            subprocess.run(["ip", "netns", "del", inner], check=True)
            connection.socket.settimeout(PATIENCE)
            gone = False
            while not gone:
                for message in split(connection.socket.recv(65536)):
                    gone |= message.type == RTM_DELLINK and LINK.decode(message.payload)[1].get("ifname") == "outer"
        assert "outer" not in redirected.run("ip", "link", "show")


def test_by_ld_so_preload_every_dynamic_program_is_served(redirected: Redirected) -> None:
    """A mount namespace with an /etc/ld.so.preload of its own, as the lab's nodes have."""
    top = redirected.directory
    for name in ("upper", "work"):
        (top / name).mkdir()
    # In some chroots / itself is closed to other users, who can then start no program at all.
    closed = not Path("/").stat().st_mode & stat.S_IXOTH
    as_nobody = "" if closed else "setpriv --reuid=65534 --clear-groups --regid=65534 sh -c true && "
    script = (
        f"mount -t overlay overlay -o lowerdir=/etc,upperdir={top}/upper,workdir={top}/work /etc && "
        f"echo {redirected.library} > /etc/ld.so.preload && tc filter show dev lo ingress && ip link show lo && "
        f"{as_nobody}devlink dev && ethtool -i v0"
    )
    redirected.stop_server()
    redirected.start_server(1)
    done = subprocess.run(
        ["ip", "netns", "exec", NAMESPACE, "unshare", "-m", "sh", "-c", script],
        env=redirected.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout
    for expected in ("gact action drop", "alias toy lo", PCI, "driver: toy_core"):
        assert expected in done.stdout
    assert (
        not Path("/etc/ld.so.preload").exists() or str(redirected.library) not in Path("/etc/ld.so.preload").read_text()
    )


@pytest.fixture(autouse=True)
def _needs_tools() -> None:
    for tool in ("tc", "ip", "devlink", "genl", "ethtool"):
        if subprocess.run(["sh", "-c", f"command -v {tool}"], stdout=subprocess.DEVNULL, check=False).returncode:
            pytest.skip(f"needs {tool}")
