# SPDX-License-Identifier: Apache-2.0
"""Packets at the host's CPU, as the kernel's messages tell them."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from asap2.host.kernel.links import cpu_hits
from asap2.netlink.wire import NetlinkError, NlMsg, attribute


class Answering:
    """A connection that answers with messages, or an error."""

    def __init__(self, *payloads: bytes, error: int = 0) -> None:
        self.payloads, self.error = payloads, error
        self.asked: list[bytes] = []

    def request(self, type: int, flags: int, payload: bytes) -> list[NlMsg]:
        assert type == 94
        self.asked.append(payload)
        if self.error:
            raise NetlinkError(self.error)
        return [NlMsg(92, flags, 1, 0, one) for one in self.payloads]


def message(index: int, *values: int) -> bytes:
    """struct if_stats_msg, and the statistics that the CPU saw (struct rtnl_link_stats64) if any."""
    header = struct.pack("=B3xII", 0, index, 8)
    return header + (attribute(4, attribute(1, struct.pack(f"={len(values)}Q", *values))) if values else b"")


def hits(*payloads: bytes, error: int = 0) -> Any:
    answering = Answering(*payloads, error=error)
    found = cpu_hits(answering)  # type: ignore[arg-type]
    assert struct.unpack("=B3xII", answering.asked[0]) == (0, 0, 8)
    return found


def test_received_and_sent_packets_are_added() -> None:
    assert hits(message(7, 3, 4, 500, 600, *[0] * 19), message(8)) == {7: 7}


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_kernel_that_does_not_know_the_question_tells_none(error: int) -> None:
    assert hits(error=error) == {}
