# SPDX-License-Identifier: Apache-2.0
"""Generic netlink and nfnetlink: whose a request is, and what their headers must be."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pytest

from asap2.netlink.dispatch import Dispatcher
from asap2.netlink.request import (
    GENL_ADMIN_PERM,
    GENL_CMD_CAP_DO,
    GENL_CMD_CAP_DUMP,
    GenlFamily,
    GenlHeader,
    Message,
    Stream,
)
from asap2.netlink.tables.genl import CTRL, CTRL_CMD_GETFAMILY, GENL_ID_CTRL, GenlHdr
from asap2.netlink.wire import (
    NETLINK_GENERIC,
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_MULTI,
    NLM_F_REQUEST,
    NLM_F_ROOT,
    NLMSG_DONE,
    NetlinkError,
    NlMsg,
    build,
    done,
    error_of,
    split,
)
from tests.captures import CAPTURES, messages
from tests.unit.netlink.dispatching import FAMILY, Kernel, Mailbox, client, number

# Generic netlink


def family(**arguments: Any) -> GenlFamily:
    return GenlFamily("toy", FAMILY, version=2, hdrsize=4, maxattr=5, **arguments)


def ask_family(
    dispatcher: Dispatcher, payload: bytes, flags: int = NLM_F_ACK, type: int = FAMILY, **options: bool
) -> Mailbox:
    mailbox = Mailbox()
    raw = build(type, flags | NLM_F_REQUEST, 3, 0, payload)
    assert dispatcher.submit(mailbox, client(NETLINK_GENERIC, **options), raw) == (len(raw), 0)
    return mailbox


def test_a_family_handler_gets_its_header_and_attributes(dispatcher: Dispatcher) -> None:
    seen: list[GenlHeader] = []
    dispatcher.add_family(family(handlers={1: lambda _request, genl: seen.append(genl)}))
    assert number(ask_family(dispatcher, b"\1\2\0\0HEADattr")) == 0
    assert seen == [GenlHeader(1, 2, b"HEAD", b"attr")]


@pytest.mark.parametrize(
    ("payload", "flags", "expected"),
    [
        (b"\2\1\0\0HEAD", 0, errno.EOPNOTSUPP),
        (b"\1\1\0", 0, errno.EINVAL),
        (b"\1\1\0\0HEA", 0, errno.EINVAL),
        (b"", 0, errno.EINVAL),
        (b"\1\1\0\0HEAD", NLM_F_DUMP, errno.EOPNOTSUPP),
        (b"\3\1\0\0HEAD", 0, errno.EOPNOTSUPP),
        (b"\4\1\0\0HEAD", 0, errno.EPERM),
        (b"\5\1\0\0HEAD", 0, errno.EOPNOTSUPP),
    ],
)
def test_a_familys_requests_are_checked(dispatcher: Dispatcher, payload: bytes, flags: int, expected: int) -> None:
    ops = [(1, GENL_CMD_CAP_DO), (3, GENL_CMD_CAP_DUMP), (4, GENL_CMD_CAP_DO | GENL_ADMIN_PERM), (5, GENL_CMD_CAP_DO)]
    dispatcher.add_family(family(ops=ops, handlers=dict.fromkeys((1, 3, 4), lambda _request, _genl: None)))
    assert number(ask_family(dispatcher, payload, flags, privileged=False)) == expected


def test_an_unknown_emulated_family_does_not_exist(dispatcher: Dispatcher) -> None:
    assert number(ask_family(dispatcher, b"\1\1\0\0", type=0x70FF)) == errno.ENOENT


def test_a_kernel_family_is_served_for_some_commands_only(dispatcher: Dispatcher) -> None:
    dispatcher.add_family(GenlFamily("ethtool", 21, real=True, handlers={11: lambda _request, _genl: None}))
    assert number(ask_family(dispatcher, b"\x0b\1\0\0", type=21)) == 0
    raw = build(21, NLM_F_REQUEST, 3, 0, b"\x0c\1\0\0")
    assert dispatcher.submit(Mailbox(), client(NETLINK_GENERIC), raw) == (0, len(raw))


def get_family(name: str) -> bytes:
    return CTRL.encode(GenlHdr(CTRL_CMD_GETFAMILY), {"family_name": name})


@pytest.mark.parametrize("capture", CAPTURES)
def test_getfamily_answers_as_the_kernel_did(dispatcher: Dispatcher, capture: str) -> None:
    compared = set()
    for message in messages(capture, NETLINK_GENERIC):
        if message.type != GENL_ID_CTRL or message.payload[0] != 1 or message.flags:
            continue
        _header, said = CTRL.decode(message.payload)
        emulated = GenlFamily(
            said["family_name"],
            0x7000 + said["family_id"],
            said["version"],
            said["hdrsize"],
            said["maxattr"],
            [(op["id"], op["flags"]) for op in said["ops"].values()],
            [(group["name"], group["id"]) for group in said.get("mcast_groups", {}).values()],
        )
        dispatcher.families.clear()
        dispatcher.add_family(emulated)
        (answer,) = ask_family(dispatcher, get_family(emulated.name), 0, GENL_ID_CTRL).messages
        expected = CTRL.encode(_header, {**said, "family_id": emulated.id})
        assert (answer.type, answer.flags, answer.payload) == (GENL_ID_CTRL, 0, expected)
        compared.add(emulated.name)
    assert {"ovs_datapath", "ovs_vport", "ovs_flow", "ovs_packet"} <= compared


def test_a_family_that_is_not_ours_is_asked_of_the_kernel(dispatcher: Dispatcher) -> None:
    dispatcher.add_family(family())
    raw = build(GENL_ID_CTRL, NLM_F_REQUEST, 3, 0, get_family("nlctrl"))
    assert dispatcher.submit(Mailbox(), client(NETLINK_GENERIC), raw) == (0, len(raw))


def test_the_list_of_families_is_the_kernels_with_ours_in_place(dispatcher: Dispatcher) -> None:
    dispatcher.add_family(family())
    kernels = [CTRL.encode(GenlHdr(1, 2), {"family_name": name, "family_id": 30}) for name in ("nlctrl", "toy")]
    mailbox = Mailbox(Kernel([*(NlMsg(GENL_ID_CTRL, 2, 1, 5, payload) for payload in kernels), split(done(1, 5))[0]]))
    raw = build(GENL_ID_CTRL, NLM_F_REQUEST | NLM_F_DUMP, 3, 0, b"\3\1\0\0")
    dispatcher.submit(mailbox, client(NETLINK_GENERIC), raw)
    found = [CTRL.decode(message.payload)[1] for message in mailbox.messages[:-1]]
    assert [(one["family_name"], one["family_id"]) for one in found] == [("nlctrl", 30), ("toy", FAMILY)]


CT_NEW, CT_GET, CT_DELETE, NFT_GETTABLE = 0x100, 0x101, 0x102, 0xA01


def netfilter(
    dispatcher: Dispatcher, type: int, flags: int = 0, payload: bytes = b"\0" * 4, **options: bool
) -> tuple[Mailbox, bool]:
    """Submit one request of nfnetlink: what came of it, and whether it is the kernel's."""
    mailbox = Mailbox()
    raw = build(type, flags | NLM_F_REQUEST, 3, 0, payload)
    consumed, passed = dispatcher.submit(mailbox, client(NETLINK_NETFILTER, **options), raw)
    assert consumed + passed == len(raw)
    return mailbox, passed == len(raw)


def test_of_nfnetlink_only_the_subsystems_that_are_served_are_ours(dispatcher: Dispatcher) -> None:
    asked: list[int] = []
    dispatcher.netfilter[1] = lambda request: asked.append(request.type)
    assert not netfilter(dispatcher, CT_DELETE)[1]
    assert netfilter(dispatcher, NFT_GETTABLE)[1]
    assert asked == [CT_DELETE]


def test_who_may_not_ask_nfnetlink_is_left_to_the_kernel(dispatcher: Dispatcher) -> None:
    dispatcher.netfilter[1] = lambda _request: pytest.fail("asked")
    assert netfilter(dispatcher, CT_GET, privileged=False)[1]


def test_a_message_of_nfnetlink_without_its_header_does_nothing(dispatcher: Dispatcher) -> None:
    dispatcher.netfilter[1] = lambda _request: pytest.fail("asked")
    mailbox, passed = netfilter(dispatcher, CT_DELETE, NLM_F_ACK, b"\0\0")
    assert not passed
    assert number(mailbox) == 0


def test_what_creates_a_connection_is_no_dump_whatever_its_flags(dispatcher: Dispatcher) -> None:
    dispatcher.netfilter[1] = lambda request: [] if request.dump else None
    mailbox, _ = netfilter(dispatcher, CT_NEW, NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE)
    assert number(mailbox) == 0
    mailbox, _ = netfilter(dispatcher, CT_GET, NLM_F_ROOT)
    assert [one.type for one in mailbox.messages] == [NLMSG_DONE]


def test_a_long_dump_is_made_as_it_is_read(dispatcher: Dispatcher) -> None:
    made: list[int] = []

    def connections() -> Iterator[Message]:
        for i in range(100):
            made.append(i)
            yield Message(CT_NEW, bytes(200))

    class Slow(Mailbox):
        def stream(self, protocol: int, portid: int, chunks: Iterator[bytes]) -> None:
            assert (protocol, portid) == (NETLINK_NETFILTER, 9)
            self.datagrams.append(next(chunks))

    dispatcher.netfilter[1] = lambda _request: Stream(connections())
    slow = Slow()
    dispatcher.submit(slow, client(NETLINK_NETFILTER), build(CT_GET, NLM_F_DUMP | NLM_F_REQUEST, 3, 0, bytes(4)))
    assert len(made) < 30
    mailbox, _ = netfilter(dispatcher, CT_GET, NLM_F_DUMP)
    assert [one.type for one in mailbox.messages] == [CT_NEW] * 100 + [NLMSG_DONE]
    assert {one.flags for one in mailbox.messages} == {NLM_F_MULTI}


def test_a_long_dump_that_breaks_off_says_so_at_its_end(dispatcher: Dispatcher) -> None:
    def connections() -> Iterator[Message]:
        yield Message(CT_NEW, bytes(200))
        raise NetlinkError(errno.EIO)

    dispatcher.netfilter[1] = lambda _request: Stream(connections())
    mailbox, _ = netfilter(dispatcher, CT_GET, NLM_F_DUMP)
    *_, last = mailbox.messages
    assert last.type == NLMSG_DONE
    error = error_of(last)
    assert error is not None
    assert error.errno == errno.EIO
