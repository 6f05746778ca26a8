# SPDX-License-Identifier: Apache-2.0
"""The server of ``asap2 host metrics``: whoever stalls costs no thread, and keeps nobody from being served."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest

from asap2.host.exporter import Exporter

ASK = b"GET /metrics HTTP/1.1\r\nHost: here\r\nX-Some: thing\r\n\r\n"
FOREVER = 3600.0


def application(environ: dict[str, Any], begin: Callable[..., Any]) -> Iterable[bytes]:
    """Says what it is asked."""
    if environ["PATH_INFO"] == "/bad":
        raise OSError("the host is gone")
    begin("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} {environ.get('HTTP_X_SOME')}".encode()]


@contextlib.asynccontextmanager
async def serving(patience: float = FOREVER, most: int = 8) -> AsyncIterator[int]:
    """A server meanwhile; its port."""
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(Exporter(application, patience, most).serve("127.0.0.1", 0, port.set_result))
    try:
        yield await port
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def asked(port: int, request: bytes = ASK) -> bytes:
    """What is answered to *request*."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def closed(reader: asyncio.StreamReader) -> None:
    """Until the other end has closed the connection."""
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""


def test_a_request_is_answered() -> None:
    async def main() -> None:
        async with serving() as port:
            answer = await asked(port)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 18\r\n")
            assert answer.endswith(b"\r\n\r\nGET /metrics thing")
            assert (await asked(port, ASK.replace(b"GET", b"HEAD"))).endswith(b"Connection: close\r\n\r\n")

    asyncio.run(main())


@pytest.mark.parametrize("begun", [b"", b"GET /metr", ASK[:-2]], ids=["nothing", "half a line", "no end"])
def test_who_stalls_keeps_nobody_from_being_served_and_costs_no_thread(begun: bytes) -> None:
    async def main() -> None:
        async with serving(most=8) as port:
            await asked(port)
            threads = threading.active_count()
            stalled = []
            for _ in range(40):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(begun)
                stalled.append((reader, writer))
            for _ in range(20):
                assert b"200 OK" in await asked(port)
            assert threading.active_count() <= threads  # other tests' may end
            for reader, _ in stalled[:32]:  # the oldest had to go
                await closed(reader)
            for _, writer in stalled:
                writer.close()

    asyncio.run(main())


def test_who_stalls_is_left_after_a_while() -> None:
    async def main() -> None:
        async with serving(patience=0.05) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await closed(reader)
            writer.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x00\xff\r\n\r\n", b"400 Bad Request"),
        (ASK.replace(b"GET", b"POST"), b"405 Method Not Allowed"),
        (ASK.replace(b"/metrics", b"/bad"), b"500 Internal Server Error"),
    ],
)
def test_what_is_no_scrape_is_refused_and_the_next_is_served(
    request_: bytes, status: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        async with serving() as port:
            assert (await asked(port, request_)).startswith(b"HTTP/1.1 " + status)
            assert b"200 OK" in await asked(port)

    asyncio.run(main())
    assert capsys.readouterr().err == ("a scrape failed: OSError: the host is gone\n" if b"500" in status else "")


def test_a_request_without_end_is_no_memory() -> None:
    async def main() -> None:
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x" * 100_000)
            await closed(reader)
            writer.close()
            assert b"200 OK" in await asked(port)

    asyncio.run(main())
