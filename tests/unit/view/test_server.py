# SPDX-License-Identifier: Apache-2.0
"""The server, asked as browsers do and as they should not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, WSServerHandshakeError

from asap2.errors import Asap2Error
from asap2.live import Collector, Snapshot
from asap2.live.still import Still
from asap2.view import sampler, server
from asap2.view.access import Access
from asap2.view.server import ViewServer
from tests.view.synthetic import Synthetic, structure

LOOPBACK = Access("127.0.0.1", True, None)
WITH_TOKEN = Access("127.0.0.1", False, "s3cret")
PAGE = "<!doctype html><title>the page</title>"


@pytest.fixture(autouse=True)
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is not the built one, which `make test` does without."""
    for name, _kind in server.FILES.values():
        (tmp_path / name).write_text(PAGE)
    monkeypatch.setattr(server, "STATIC", tmp_path)


@asynccontextmanager
async def serving(
    source: Collector | ViewServer, access: Access = LOOPBACK, every: float = 0.01
) -> AsyncIterator[tuple[ClientSession, str]]:
    """A server at any free port, and its address."""
    made = source if isinstance(source, ViewServer) else ViewServer(source, access, every)
    bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(made.serve(0, bound.set_result))
    try:
        async with ClientSession() as session:
            yield session, f"127.0.0.1:{await bound}"
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def message(socket: ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    """The next message of a kind."""
    while True:
        found: dict[str, Any] = json.loads(await asyncio.wait_for(socket.receive_str(), 10))
        if found["type"] == kind:
            return found


async def until(true: Callable[[], bool]) -> None:
    """Return when *true* is."""
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test that waits."""
    asyncio.run(asyncio.wait_for(test(), 30))


def test_the_page_may_run_nothing_but_its_own_script() -> None:
    async def asked() -> None:
        async with serving(Synthetic(2)) as (session, at), session.get(f"http://{at}/") as answer:
            assert (answer.status, answer.content_type, await answer.text()) == (200, "text/html", PAGE)
            policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
            assert policy["frame-ancestors"] == "'none'"
            assert not any("unsafe" in part or "*" in part for part in policy.values())
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"

    run(asked)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {"Host": "evil.example"}, 421),
        ("GET", "/stream", {"Host": "evil.example"}, 421),
        ("GET", "/etc/passwd", {}, 404),
        ("GET", "/../server.py", {}, 404),
        ("GET", "/%2e%2e/server.py", {}, 404),
        ("GET", "/index.html", {}, 404),
        ("POST", "/", {}, 405),
        ("DELETE", "/view.js", {}, 405),
        ("GET", "/stream", {}, 400),
    ],
)
def test_other_requests_are_refused_with_the_same_headers(
    method: str, path: str, headers: dict[str, str], status: int
) -> None:
    async def asked() -> None:
        async with (
            serving(Synthetic(2)) as (session, at),
            session.request(method, f"http://{at}{path}", headers=headers) as answer,
        ):
            assert answer.status == status
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert "Traceback" not in await answer.text()

    run(asked)


@pytest.mark.parametrize(
    "octets",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a" * 20000,
    ],
)
def test_what_is_no_request_does_not_stop_the_server(octets: bytes) -> None:
    async def asked() -> None:
        async with serving(Synthetic(2)) as (session, at):
            host, _, port = at.partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(octets)
            writer.write_eof()
            assert b" 200 " not in await asyncio.wait_for(reader.read(), 10)
            writer.close()
            async with session.get(f"http://{at}/") as answer:
                assert answer.status == 200

    run(asked)


def test_a_browser_gets_the_structure_once_and_then_what_moves() -> None:
    collector = Synthetic(2)

    async def watched() -> None:
        async with serving(collector) as (session, at), session.ws_connect(f"http://{at}/stream") as socket:
            first = await message(socket, "structure")
            ports = [port["id"] for node in first["snapshot"]["nodes"] for port in node["ports"]]
            every = await message(socket, "counters")
            assert len(every["ports"]) == len(ports)
            later = await message(socket, "counters")
            assert {ports[int(place)].split("/")[-1] for place in later["ports"]} == {
                *("enp3s0f0", "pf0vf0", "pf0vf1", "eth0", "eth1")
            }
            assert later["ports"]["0"][0] == every["ports"]["0"][0] + 1000
            assert later["taken"] > every["taken"]
            collector.generation += 1
            assert await message(socket, "structure")

    run(watched)


def test_details_are_read_while_a_browser_wants_them() -> None:
    collector = Synthetic(2)

    async def watched() -> None:
        async with serving(collector) as (session, at):
            async with session.ws_connect(f"http://{at}/stream") as socket:
                await socket.send_json({"want": "hv2"})
                found = await message(socket, "detail")
                assert found["node"] == "hv2"
                assert [flow["code"] for flow in found["detail"]["flows"]] == ["offloaded", "nic.to-host"]
                assert collector.wanted == {"hv2"}
                await socket.send_json({"want": None})
                await until(lambda: not collector.wanted)
                await socket.send_json({"want": "hv1"})
                await until(lambda: collector.wanted == {"hv1"})
            await until(lambda: not collector.wanted)

    run(watched)


def test_details_of_a_node_that_is_known_later_are_read_then() -> None:
    class Late(Synthetic):
        @property
        def nodes(self) -> tuple[str, ...]:
            return super().nodes if self.samples > 3 else ()

    async def watched() -> None:
        async with serving(Late(2)) as (session, at), session.ws_connect(f"http://{at}/stream") as socket:
            await socket.send_json({"want": "hv2"})
            assert (await message(socket, "detail"))["node"] == "hv2"

    run(watched)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"want": 7}', '{"want": ["hv1"]}', '{"want": "hv9"}', "\0"])
def test_what_a_browser_should_not_send_changes_nothing(text: str) -> None:
    collector = Synthetic(2)

    async def watched() -> None:
        async with serving(collector) as (session, at), session.ws_connect(f"http://{at}/stream") as socket:
            await message(socket, "structure")
            await socket.send_str(text)
            for _ in range(3):
                await message(socket, "counters")
            assert collector.wanted == frozenset()

    run(watched)


def test_a_message_that_is_too_long_ends_the_stream_alone() -> None:
    async def watched() -> None:
        async with serving(Synthetic(2)) as (session, at):
            async with session.ws_connect(f"http://{at}/stream") as socket:
                await socket.send_str("x" * (server.LONGEST + 1))
                async for found in socket:
                    assert found.type is WSMsgType.TEXT
                assert socket.close_code == 1009
            async with session.get(f"http://{at}/") as answer:
                assert answer.status == 200

    run(watched)


def test_nothing_is_sampled_while_nobody_looks() -> None:
    collector = Synthetic(2)
    made = ViewServer(collector, LOOPBACK, 0.01)

    async def watched() -> None:
        async with serving(made) as (session, at):
            await asyncio.sleep(0.1)
            assert collector.samples == 0
            async with session.ws_connect(f"http://{at}/stream") as socket:
                await message(socket, "counters")
            await until(lambda: made.idle)
            seen = collector.samples
            await asyncio.sleep(0.1)
            assert collector.samples == seen
        assert collector.closed

    run(watched)


def test_two_browsers_cost_one_sample() -> None:
    collector = Synthetic(2)

    async def watched() -> None:
        async with (
            serving(collector, every=0.05) as (session, at),
            session.ws_connect(f"http://{at}/stream") as one,
            session.ws_connect(f"http://{at}/stream") as other,
        ):
            first, second = await message(one, "counters"), await message(other, "counters")
            while first["taken"] != second["taken"]:
                late = one if first["taken"] < second["taken"] else other
                found = await message(late, "counters")
                first, second = (found, second) if late is one else (first, found)
            assert first["taken"] == second["taken"]

    run(watched)


def test_a_page_of_another_site_gets_no_stream() -> None:
    async def asked() -> None:
        async with serving(Synthetic(2)) as (session, at):
            with pytest.raises(WSServerHandshakeError) as refused:
                await session.ws_connect(f"http://{at}/stream", origin="http://evil.example")
            assert refused.value.status == 403

    run(asked)


@pytest.mark.parametrize("shown", ['{"token": "wrong"}', "{}", "x", '{"token": null}'])
def test_without_the_token_nothing_is_told(shown: str) -> None:
    collector = Synthetic(2)

    async def asked() -> None:
        async with (
            serving(collector, WITH_TOKEN) as (session, at),
            session.ws_connect(f"http://{at}/stream") as socket,
        ):
            await socket.send_str(shown)
            found = await asyncio.wait_for(socket.receive(), 10)
            assert (found.type, socket.close_code) == (WSMsgType.CLOSE, 4401)
        assert collector.samples == 0

    run(asked)


def test_with_the_token_the_stream_begins() -> None:
    async def asked() -> None:
        async with (
            serving(Synthetic(2), WITH_TOKEN) as (session, at),
            session.ws_connect(f"http://{at}/stream") as socket,
        ):
            await socket.send_json({"token": "s3cret"})
            assert await message(socket, "structure")

    run(asked)


def test_a_browser_that_never_shows_a_token_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.05)

    async def asked() -> None:
        async with (
            serving(Synthetic(2), WITH_TOKEN) as (session, at),
            session.ws_connect(f"http://{at}/stream") as socket,
        ):
            found = await asyncio.wait_for(socket.receive(), 10)
            assert found.type is WSMsgType.CLOSE

    run(asked)


def test_more_browsers_than_there_may_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_WATCHERS", 1)

    async def asked() -> None:
        async with serving(Synthetic(2)) as (session, at), session.ws_connect(f"http://{at}/stream"):
            with pytest.raises(WSServerHandshakeError) as refused:
                await session.ws_connect(f"http://{at}/stream")
            assert refused.value.status == 503

    run(asked)


def test_a_browser_that_is_far_behind_gets_everything_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "MOST_WAITING", 3)

    async def watched() -> None:
        made = sampler.Sampler(Synthetic(2), 0.001)
        watcher = made.join()
        await until(lambda: not watcher.whole and watcher.messages.qsize() > 3)
        await asyncio.sleep(0.1)
        assert watcher.messages.qsize() <= 6
        await made.close()

    run(watched)


def test_the_end_of_a_lab_is_told() -> None:
    class Gone(Synthetic):
        def sample(self) -> Snapshot:
            raise Asap2Error("no lab is up")

    async def watched() -> None:
        async with serving(Gone(2)) as (session, at), session.ws_connect(f"http://{at}/stream") as socket:
            assert (await message(socket, "end"))["why"] == "no lab is up"

    run(watched)


def test_a_capture_is_told_once() -> None:
    async def watched() -> None:
        async with serving(Still(structure(2))) as (session, at), session.ws_connect(f"http://{at}/stream") as socket:
            assert await message(socket, "structure")
            assert await message(socket, "counters")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(socket.receive_str(), 0.1)

    run(watched)


def test_a_port_that_is_taken_is_one_sentence() -> None:
    async def asked() -> None:
        async with serving(Synthetic(2)) as (_session, at):
            port = int(at.partition(":")[2])
            with pytest.raises(OSError, match="Address already in use") as refused:
                await ViewServer(Synthetic(2), LOOPBACK).serve(port, lambda _: None)
            assert refused.value.filename == f"127.0.0.1 port {port}"

    run(asked)


def test_a_page_that_is_not_built_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "view.js").unlink()
    with pytest.raises(Asap2Error, match="make setup-view"):
        server.check_built()


def test_each_browser_gets_the_connections_that_it_asks_for() -> None:
    async def asked() -> None:
        source = Synthetic(2)
        async with (
            serving(source) as (session, at),
            session.ws_connect(f"http://{at}/stream") as one,
            session.ws_connect(f"http://{at}/stream") as other,
        ):
            await one.send_json({"want": "hv1", "connections": "tcp"})
            await other.send_json({"want": "hv1", "connections": ""})
            assert await listed(one, "tcp") == [True]
            assert await listed(other, "") == [True, False]
            await one.send_json({"want": "hv1", "connections": ["tcp"]})
            await one.send_json({"want": "hv1", "connections": None})
            await until(lambda: source.listed == {""})

    async def listed(socket: ClientWebSocketResponse, words: str) -> list[bool]:
        while True:
            found = (await message(socket, "detail"))["detail"]["listings"]
            if found:
                (one,) = found
                assert one["words"] == words
                return [entry["hardware"] for entry in one["entries"]]

    run(asked)
