# SPDX-License-Identifier: Apache-2.0
"""Requests that are served in parts: others are served in between, and who asked is answered in the end."""

from __future__ import annotations

import errno
import selectors
import threading
from collections.abc import Iterator

import pytest

from asap2.netlink import parts
from asap2.netlink.dispatch import Dispatcher
from asap2.netlink.parts import Rounds, Served, Unfinished
from asap2.netlink.request import PASS, Answer, Parts, Request
from asap2.netlink.wire import NLM_F_ACK, NLM_F_REQUEST, NetlinkError, build
from tests.unit.netlink.dispatching import NEW, SET, Mailbox, client, number

MESSAGE = build(NEW, NLM_F_REQUEST | NLM_F_ACK, 3, 0, bytes(4))
OTHER = build(SET, NLM_F_REQUEST, 4, 0, bytes(4))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part is one step."""
    monkeypatch.setattr(parts, "PART_NS", 0)


def test_requests_go_on_in_turn_and_with_whatever_else_is_ready() -> None:
    done: list[str] = []

    def steps(name: str, count: int) -> Iterator[None]:
        for _ in range(count):
            done.append(name)
            yield

    def finished(error: NetlinkError | None) -> Served:
        assert error is None
        return 7, 0

    ended: list[Served] = []
    rounds, lock = Rounds(), threading.RLock()
    with selectors.DefaultSelector() as selector:
        for name, count in (("a", 3), ("b", 2)):
            rounds.add(selector, Unfinished(steps(name, count), lock, finished), ended.append)
        while selector.get_map():
            for key, mask in selector.select(0):
                key.data(mask)
            done.append(".")
        rounds.close()
    assert "".join(done).replace(".", "") == "ababa"
    assert "a.b.a.b.a" in "".join(done)
    assert ended == [(7, 0), (7, 0)]


@pytest.fixture
def begun(dispatcher: Dispatcher) -> list[int]:
    """A handler that does three steps, which are remembered."""
    made: list[int] = []

    def steps() -> Iterator[None]:
        for step in range(3):
            made.append(step)
            yield

    def handler(request: Request) -> Answer:
        return Parts(steps(), PASS if not request.ack else None)

    dispatcher.route[NEW] = handler
    return made


def test_the_acknowledgement_comes_when_all_is_done(dispatcher: Dispatcher, begun: list[int]) -> None:
    mailbox = Mailbox()
    request = dispatcher.begin(mailbox, client(), MESSAGE)
    assert isinstance(request, Unfinished)
    for made in range(3):
        assert len(begun) == made
        assert mailbox.datagrams == []
        assert request.go_on(0) is None
    assert request.go_on(0) == (len(MESSAGE), 0)
    assert number(mailbox) == 0


def test_what_is_the_kernels_too_goes_to_it_in_the_end(dispatcher: Dispatcher, begun: list[int]) -> None:
    mailbox, message = Mailbox(), build(NEW, NLM_F_REQUEST, 3, 0, bytes(4))
    assert dispatcher.submit(mailbox, client(), message) == (0, len(message))
    assert (begun, mailbox.datagrams) == ([0, 1, 2], [])


def test_in_the_midst_of_a_batch_all_is_done_before_what_follows(dispatcher: Dispatcher, begun: list[int]) -> None:
    seen: list[int] = []
    dispatcher.route[SET] = lambda _request: seen.extend(begun)
    assert dispatcher.begin(Mailbox(), client(), MESSAGE + OTHER) == (len(MESSAGE + OTHER), 0)
    assert seen == [0, 1, 2]


def test_a_step_that_fails_is_an_error(dispatcher: Dispatcher) -> None:
    def steps() -> Iterator[None]:
        yield
        raise OSError(errno.ENOMEM, "")

    dispatcher.route[NEW] = lambda _request: Parts(steps())
    mailbox = Mailbox()
    assert dispatcher.submit(mailbox, client(), MESSAGE) == (len(MESSAGE), 0)
    assert number(mailbox) == errno.ENOMEM
