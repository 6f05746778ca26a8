# SPDX-License-Identifier: Apache-2.0
"""``python -m asap2.view.reader URL NODE``: read the stream as a browser that shows the flows of a node, until SIGTERM;
then print how many messages came. For measurements."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

from aiohttp import ClientSession


async def read(url: str, node: str) -> None:
    """Read until cancelled."""
    number = 0
    async with ClientSession() as session, session.ws_connect(f"{url}stream") as socket:
        await socket.send_json({"want": node})
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            async for _ in socket:
                if not number:
                    print("reading", flush=True)
                number += 1
    print(number)


if __name__ == "__main__":
    asyncio.run(read(sys.argv[1], sys.argv[2]))
