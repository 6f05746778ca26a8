# SPDX-License-Identifier: Apache-2.0
"""Ids of network namespaces: the silicon's is not told."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from asap2.netlink.request import PASS, Proxy
from asap2.netlink.wire import NLM_F_DUMP, NetlinkError, NlMsg, attribute, attributes
from asap2.nic.faces.rtnetlink.namespaces import RTM_GETNSID, RTM_NEWNSID, NamespaceFace
from tests.unit.nic.faces.faces import HOME, StillServer, request

NSID, FD, TARGET, CURRENT = 1, 3, 4, 5
SILICON, GUEST = 30, 31
"""Descriptors of namespaces; the kernel here knows them by the ids 0 and 1."""


def payload(**ids: int) -> bytes:
    number = {"nsid": NSID, "fd": FD, "target": TARGET, "current": CURRENT}
    return bytes(4) + b"".join(attribute(number[name], struct.pack("=i", value)) for name, value in ids.items())


class Kernel:
    def request(self, _type: int, _flags: int, asked: bytes) -> list[NlMsg]:
        ids = {type_: struct.unpack("=i", value)[0] for type_, value in attributes(asked, 4)}
        if FD in ids:
            return [NlMsg(RTM_NEWNSID, 0, 0, 0, payload(nsid={SILICON: 0, GUEST: 1}.get(ids[FD], -1)))]
        if ids[NSID] != 1:
            raise NetlinkError(errno.ENOENT)
        return [NlMsg(RTM_NEWNSID, 0, 0, 0, payload(nsid=7 if TARGET in ids else 1))]


class Server(StillServer):
    def kernel(self, _netns: Any, _protocol: int) -> Any:
        return Kernel()


@pytest.fixture
def face() -> NamespaceFace:
    return NamespaceFace(Server(), [SILICON])  # type: ignore[arg-type]


def test_a_dump_leaves_the_silicon_out(face: NamespaceFace) -> None:
    answer = face.get(request(RTM_GETNSID, payload(), 1 | NLM_F_DUMP))
    assert isinstance(answer, Proxy)
    shown = [list(answer.rewrite(NlMsg(RTM_NEWNSID, 0, 0, 0, payload(nsid=nsid)))) for nsid in (0, 1)]
    assert [len(messages) for messages in shown] == [0, 1]


def test_a_dump_as_seen_from_another_namespace_goes_by_the_ids_of_this(face: NamespaceFace) -> None:
    answer = face.get(request(RTM_GETNSID, payload(target=1), 1 | NLM_F_DUMP))
    assert isinstance(answer, Proxy)
    seen = ((0, 1), (3, 0))
    told = [NlMsg(RTM_NEWNSID, 0, 0, 0, payload(nsid=nsid, current=current)) for nsid, current in seen]
    assert [len(list(answer.rewrite(message))) for message in told] == [1, 0]


def test_the_silicons_id_is_not_known(face: NamespaceFace) -> None:
    with pytest.raises(NetlinkError) as refused:
        face.get(request(RTM_GETNSID, payload(nsid=0)))
    assert refused.value.errno == errno.ENOENT


def test_a_programs_descriptor_is_the_kernels_to_look_at(face: NamespaceFace) -> None:
    assert face.get(request(RTM_GETNSID, payload(fd=GUEST))) is PASS


def test_an_id_here_is_found_in_another_namespace(face: NamespaceFace) -> None:
    assert face.id_in(HOME, 1, GUEST) == 7
    assert face.id_in(HOME, 5, GUEST) is None
    assert face.id_in(HOME, 1, 99) is None
