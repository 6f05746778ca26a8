# SPDX-License-Identifier: Apache-2.0
"""Serves Prometheus' figures over HTTP, to many at a time, and to others while some stall.

One thread has all connections, another reads the host, one scrape after the other. A connection that does not send its
request, or take its answer, in time is closed; so is the one that waits longest, when there are too many.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from prometheus_client import CollectorRegistry, make_wsgi_app

from asap2.output import say

PATIENCE = 10.0
"""Seconds that a request may take to come, and an answer to be taken."""
MOST = 32
"""Connections at a time."""
LONGEST = 16384
"""Octets of a request with its headers."""
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""WSGI's (PEP 3333)."""


def serve(address: str, port: int, figures: CollectorRegistry, ready: Callable[[int], None]) -> None:
    """Serve *figures* until interrupted; *ready* is called with the port when it can be reached. OSError when the port
    cannot be had."""
    asyncio.run(Exporter(make_wsgi_app(figures)).serve(address, port, ready))


class Exporter:
    """A server of *application*'s answers to GET and HEAD. A connection carries one request."""

    def __init__(self, application: Application, patience: float = PATIENCE, most: int = MOST) -> None:
        self._application = application
        self._patience = patience
        self._most = most
        self._waiting: dict[asyncio.StreamWriter, None] = {}
        """Connections that wait for their other end, the oldest first."""
        self._open = 0
        self._reader = ThreadPoolExecutor(1, "scrape")

    async def serve(self, address: str, port: int, ready: Callable[[int], None]) -> None:
        """Serve until cancelled."""
        opened = _bound(address, port)
        server = await asyncio.start_server(self._connected, sock=opened, limit=LONGEST)
        async with server:
            ready(opened.getsockname()[1])
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._waiting[writer] = None
        self._open += 1
        if self._open > self._most:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.transport.abort()
        try:
            request = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), self._patience)
            self._waiting.pop(writer, None)
            answer = await self._answer(request)
            self._waiting[writer] = None
            writer.write(answer)
            await asyncio.wait_for(writer.drain(), self._patience)
            writer.close()
            await asyncio.wait_for(writer.wait_closed(), self._patience)
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass  # it stalls, has gone, or speaks something else
        finally:
            self._open -= 1
            self._waiting.pop(writer, None)
            writer.transport.abort()

    async def _answer(self, request: bytes) -> bytes:
        """The response to *request*, whole."""
        head, *lines = request.decode("latin-1").split("\r\n")
        words = head.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/"):
            return _response("400 Bad Request", b"")
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return _response("405 Method Not Allowed", b"", [("Allow", "GET, HEAD")])
        path, _, query = target.partition("?")
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query}
        for line in lines:
            name, _, value = line.partition(":")
            environ[f"HTTP_{name.strip().upper().replace('-', '_')}"] = value.strip()
        try:
            status, headers, body = await asyncio.get_running_loop().run_in_executor(self._reader, self._ask, environ)
        except Exception as error:
            say(f"a scrape failed: {type(error).__name__}: {error}", file=sys.stderr)
            return _response("500 Internal Server Error", f"{type(error).__name__}: {error}\n".encode(errors="replace"))
        return _response(status, body, headers, whole=method == "GET")

    def _ask(self, environ: dict[str, str]) -> tuple[str, list[tuple[str, str]], bytes]:
        """What the application says: status, headers, body."""
        said: list[tuple[str, list[tuple[str, str]]]] = []
        body = b"".join(self._application(environ, lambda status, headers: said.append((status, headers))))
        return *said[0], body


def _bound(address: str, port: int) -> socket.socket:
    """A socket at *address* and *port*; OSError that names them."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise OSError(error.errno, error.strerror, address) from None
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(where)
    except OSError as error:
        opened.close()
        raise OSError(error.errno, error.strerror, f"{address} port {port}") from None
    return opened


def _response(status: str, body: bytes, headers: Iterable[tuple[str, str]] = (), *, whole: bool = True) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1", "replace") + (body if whole else b"")
