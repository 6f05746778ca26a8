# SPDX-License-Identifier: Apache-2.0
"""The traffic of tunnels: asked by OpenFlow, and divided into hardware and software."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asap2.host.inventory import Bridge, Interface, Port
from asap2.live import openflow, tunnels
from asap2.live.counted import Stats
from asap2.live.openflow import OpenFlowError, port_counters
from asap2.live.snapshot import Counters
from asap2.live.tunnels import TunnelCounters, shares

UNKNOWN = (1 << 64) - 1
NUMBERS = {1: (10, 20, 1000, 2000), 2: (5, 6, 500, 600)}


def message(version: int, kind: int, payload: bytes) -> bytes:
    """A message of OpenFlow."""
    return struct.pack("!BBHI", version, kind, 8 + len(payload), 1) + payload


def port(version: int, number: int) -> bytes:
    """A port's counters as that version has them; what was dropped is not known."""
    counters = (*NUMBERS[number], *(UNKNOWN,) * 8)
    if version == 1:
        return struct.pack("!H6x12Q", number, *counters)
    if version == 4:
        return struct.pack("!I4x12QII", number, *counters, 7, 8)
    return struct.pack("!H2xIII8Q", 88, number, 7, 8, *counters[:8]) + bytes(8)


def answer(version: int, number: int, more: int) -> bytes:
    """An answer about one port."""
    if version == 1:
        return message(version, 17, struct.pack("!HH", 4, more) + port(version, number))
    return message(version, 19, struct.pack("!HH4x", 4, more) + port(version, number))


@contextmanager
def bridge(path: Path, *sends: bytes) -> Iterator[list[bytes]]:
    """A bridge that greets with the first of *sends*, and answers what is then asked with the others; what it got."""
    got: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            client, _ = server.accept()
            with client:
                stream = client.makefile("rb")
                client.sendall(sends[0])
                for answers in [[], sends[1:]] if len(sends) > 1 else [[]]:
                    head = stream.read(8)
                    got.append(head + stream.read(struct.unpack("!H", head[2:4])[0] - 8))
                    for one in answers:
                        client.sendall(one)
                client.shutdown(socket.SHUT_WR)
                got.append(stream.read())

        thread = threading.Thread(target=serve)
        thread.start()
        yield got
        thread.join()


@pytest.mark.parametrize(("version", "request_type"), [(1, 16), (4, 18), (5, 18), (6, 18)])
def test_the_counters_of_all_ports_are_read_in_each_version(tmp_path: Path, version: int, request_type: int) -> None:
    hello = message(version, 0, b"" if version == 1 else struct.pack("!HHI", 1, 8, 1 << version | 1 << 3))
    echo = message(version, 2, b"still there?")
    path = tmp_path / "br.mgmt"
    with bridge(path, hello, echo, answer(version, 1, 1), answer(version, 2, 0)) as got:
        assert port_counters(str(path)) == {number: Stats(*counted, 0, 0) for number, counted in NUMBERS.items()}
    greeted, asked, echoed = got
    assert greeted[1] == 0
    assert (asked[0], asked[1]) == (version, request_type)
    assert echoed == message(version, 3, b"still there?")


@pytest.mark.parametrize(
    ("sends", "why"),
    [
        ([message(2, 0, b"")], "speaks no version"),
        ([message(6, 0, struct.pack("!HHI", 1, 8, 1 << 3))], "speaks no version"),
        ([b"\x01\x00\x00\x03aaaa"], "no OpenFlow"),
        ([message(1, 0, b""), message(1, 1, bytes(8))], "refuses"),
        ([message(1, 0, b""), message(1, 17, b"\0")], "cut short"),
        ([message(6, 0, b"")[:4]], "closed the connection|no version"),
        ([message(1, 0, b""), message(1, 17, struct.pack("!HH", 4, 1))], "closed the connection"),
    ],
)
def test_what_is_no_answer_is_an_error(tmp_path: Path, sends: list[bytes], why: str) -> None:
    path = tmp_path / "br.mgmt"
    with bridge(path, *sends), pytest.raises(OpenFlowError, match=why):
        port_counters(str(path))


def test_a_bridge_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openflow, "PATIENCE", 0.05)
    path = tmp_path / "br.mgmt"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(OSError, match=r"timed out|in time"):
            port_counters(str(path))


def test_what_the_cpu_has_seen_is_divided_by_traffic() -> None:
    whole = {"one": Stats(100, 0, 1000, 0), "other": Stats(300, 50, 3000, 500)}
    assert shares(whole, Stats(8, 10, 80, 100)) == {"one": Stats(2, 0, 20, 0), "other": Stats(6, 10, 60, 100)}


def test_no_tunnel_has_more_in_software_than_there_is() -> None:
    assert shares({"one": Stats(3, 4, 30, 40)}, Stats(9, 9, 90, 90)) == {"one": Stats(3, 4, 30, 40)}


MESH = Bridge(
    "br-int",
    ports=tuple(
        Port(name, interfaces=(Interface(name, "vxlan", None, number),)) for number, name in enumerate(("a", "b"), 1)
    ),
)


def test_tunnels_of_one_device_have_each_its_counters_which_only_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {1: Stats(100, 100, 1000, 1000), 2: Stats(100, 0, 1000, 0)}
    asked = []
    monkeypatch.setattr(openflow, "port_counters", lambda path: asked.append(path) or dict(told))  # type: ignore[func-returns-value]
    monkeypatch.setattr(tunnels, "EVERY", 0.0)
    counters = TunnelCounters(lambda name: f"/run/{name}")
    first = counters.read([MESH], lambda device: Stats(20, 10, 200, 100) if device == "vxlan_sys_4789" else Stats())
    assert asked == ["/run/br-int.mgmt"]
    assert first["a"] == Counters(90, 900, 90, 900, 10, 100, 10, 100)
    assert first["b"] == Counters(90, 900, 0, 0, 10, 100, 0, 0)
    told[2] = Stats(300, 0, 3000, 0)
    second = counters.read([MESH], lambda _: Stats(20, 10, 200, 100))
    assert second["a"].software_in_packets == 10, "though its part is 5 now"
    assert second["b"].hardware_in_packets == 285
    told[1] = Stats(1, 1, 10, 10)
    assert counters.read([MESH], lambda _: Stats())["a"].hardware_in_packets == 1, "the port was made again"


def test_a_bridge_that_does_not_answer_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(path: str) -> dict[int, Stats]:
        asked.append(path)
        raise OpenFlowError("no")

    monkeypatch.setattr(openflow, "port_counters", refuse)
    counters = TunnelCounters(lambda name: name)
    assert counters.read([MESH], lambda _: Stats()) == {}
    assert counters.read([MESH], lambda _: Stats()) == {}
    assert len(asked) == 1
