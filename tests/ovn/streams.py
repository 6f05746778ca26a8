# SPDX-License-Identifier: Apache-2.0
"""A steady stream of pings, and what of it was lost while something else happened."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from tests.system.offload.labs import Bench


@dataclass
class Stream:
    """Echo requests that were sent, and replies that came."""

    sent: int = 0
    received: int = 0


@contextlib.contextmanager
def pinging(bench: Bench, guest: str, address: str) -> Iterator[Stream]:
    """500 pings a second from *guest* to *address* meanwhile; the flows are there when it begins."""
    bench.ok(guest, f"ping -q -c 5 -i 0.02 {address}")
    stream = Stream()
    with bench.start(guest, "ping", "-i", "0.002", address) as process:
        assert process.stdout is not None
        while "bytes from" not in process.stdout.readline():
            assert process.poll() is None
        yield stream
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate()
    found = re.search(r"(\d+) packets transmitted, (\d+) received", output)
    assert found, output
    stream.sent, stream.received = int(found[1]), int(found[2])
