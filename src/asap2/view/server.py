# SPDX-License-Identifier: Apache-2.0
"""The HTTP server of the picture: the page's files, and a WebSocket with what changes.

What a browser may do is as little as possible: its page has no inline script or style, loads nothing from elsewhere,
and cannot be put into another page's frame. Nothing that a browser sends changes anything but what it is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from asap2.errors import Asap2Error
from asap2.live import Collector
from asap2.view.access import Access
from asap2.view.sampler import EVERY, Sampler, Watcher

if TYPE_CHECKING:
    from asap2.view.packets import Packets

STATIC = Path(__file__).with_name("static")
FILES = {
    "/": ("index.html", "text/html"),
    "/view.js": ("view.js", "text/javascript"),
    "/view.css": ("view.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/licences.txt": ("licences.txt", "text/plain"),
}
"""What is served, by path: nothing else of the file system can be reached."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
LONGEST = 4096
"""Octets of a browser's message."""
PATIENCE = 5.0
"""Seconds in which a browser must show its token."""
MOST_WATCHERS = 32
_STREAM = "/stream"
_AT_END: dict[str, Any] = {"shutdown_timeout": 1.0}
"""Seconds that connections have to end by themselves."""


class ViewServer:
    """Serves the picture of what *collector* sees, and the ways of *packets*, to those that *access* lets in."""

    def __init__(
        self, collector: Collector, access: Access, every: float = EVERY, packets: Packets | None = None
    ) -> None:
        self.access = access
        self._sampler = Sampler(collector, every, packets)
        self._files = {path: ((STATIC / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}
        self._sockets: set[web.WebSocketResponse] = set()

    @property
    def idle(self) -> bool:
        """Whether nobody looks, so that nothing is sampled."""
        return self._sampler.idle

    def application(self) -> web.Application:
        """The application."""
        made = web.Application(middlewares=[self._guard], client_max_size=LONGEST)
        for path in FILES:
            made.router.add_get(path, self._file)
        made.router.add_get(_STREAM, self._stream)
        made.on_shutdown.append(self._shutdown)
        return made

    async def serve(self, port: int, ready: Callable[[int], None]) -> None:
        """Serve at *port* (0: any that is free) until cancelled; *ready* is called with the port that it is. OSError
        when the port cannot be had."""
        # aiohttp 3.8, as Debian 12 has it, takes the timeout for the site
        of_runner = "shutdown_timeout" in inspect.signature(web.BaseRunner).parameters
        for_runner, for_site = (_AT_END, {}) if of_runner else ({}, _AT_END)
        runner = web.AppRunner(self.application(), access_log=None, **for_runner)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self.access.address, port, **for_site)
            try:
                await site.start()
            except OSError as error:
                where = f"{self.access.address} port {port}"
                raise OSError(error.errno, _reason(error), where) from None
            ready(runner.addresses[0][1])
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _shutdown(self, _application: web.Application) -> None:
        await self._sampler.close()
        for socket in list(self._sockets):
            await socket.close()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[..., object]) -> web.StreamResponse:
        """Refuse requests that are not meant for this server; give every answer the headers."""
        if not self.access.host_allowed(request.headers.get("Host")):
            return _refused(421, "this server does not have that name")
        try:
            response = await handler(request)  # type: ignore[misc]
        except web.HTTPException as error:
            return _refused(error.status, error.reason, error.headers.get("Allow"))
        assert isinstance(response, web.StreamResponse)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _file(self, request: web.Request) -> web.Response:
        body, kind = self._files[request.path]
        return web.Response(body=body, content_type=kind, charset="utf-8")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if not self.access.origin_allowed(request.headers.get("Origin"), request.headers.get("Host")):
            return _refused(403, "a page of another site may not look at this")
        if len(self._sockets) >= MOST_WATCHERS:
            return _refused(503, "too many look at this already")
        socket = web.WebSocketResponse(max_msg_size=LONGEST, heartbeat=20.0, compress=False)
        if not socket.can_prepare(request).ok:
            return _refused(400, "this is for WebSockets")
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            if await self._admitted(socket):
                await self._watch(socket)
        finally:
            self._sockets.discard(socket)
            await socket.close()
        return socket

    async def _admitted(self, socket: web.WebSocketResponse) -> bool:
        """Whether the browser shows the token, where one is needed."""
        if self.access.token is None:
            return True
        try:
            message = await socket.receive(PATIENCE)
        except TimeoutError:
            return False
        wanted = _message(message.data) if message.type is WSMsgType.TEXT else {}
        if self.access.token_allowed(wanted.get("token")):
            return True
        await socket.close(code=4401, message=b"the token is wrong")
        return False

    async def _watch(self, socket: web.WebSocketResponse) -> None:
        watcher = self._sampler.join()
        sending = asyncio.create_task(_send(socket, watcher))
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    break
                said = _message(message.data)
                wants, listed = said.get("want"), said.get("connections")
                if isinstance(wants, str | None) and isinstance(listed, str | None):
                    watcher.wants, watcher.listed = wants, listed
                    watcher.shown.clear()
        finally:
            await self._sampler.leave(watcher)
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sending


async def _send(socket: web.WebSocketResponse, watcher: Watcher) -> None:
    while (text := await watcher.messages.get()) is not None:
        await socket.send_str(text)
    await socket.close()


def _message(text: str) -> dict[str, object]:
    """What a browser has sent; nothing, when it is not an object."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _refused(status: int, why: str, allow: str | None = None) -> web.Response:
    headers = HEADERS | ({"Allow": allow} if allow else {})
    return web.Response(status=status, text=f"{why}\n", headers=headers)


def _reason(error: OSError) -> str:
    """The kernel's words, without asyncio's around them."""
    return {errno.EADDRINUSE: "Address already in use", errno.EACCES: "Permission denied"}.get(
        error.errno or 0, error.strerror or str(error)
    )


def check_built() -> None:
    """Asap2Error, unless the page was built."""
    if not all((STATIC / name).exists() for name, _kind in FILES.values()):
        raise Asap2Error("the page of asap2 view is not built; `make setup-view` builds it")


def run(server: ViewServer, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; *ready* gets the URL for a person. OSError when the port cannot be had."""

    async def serving() -> None:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await server.serve(port, lambda bound: ready(server.access.url(bound)))

    asyncio.run(serving())
