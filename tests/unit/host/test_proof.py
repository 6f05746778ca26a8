# SPDX-License-Identifier: Apache-2.0
"""What ``asap2 host setup --verify`` takes."""

from __future__ import annotations

import pytest

from asap2.errors import UsageError
from asap2.host.verify.proof import Wanted, checked


def test_a_peer_and_an_address_of_its_prefix() -> None:
    assert checked("10.57.0.2", "10.57.0.1/24") == Wanted("10.57.0.2", "10.57.0.1/24")
    assert checked("fd00:57:0::2", None) == Wanted("fd00:57::2")


@pytest.mark.parametrize(
    ("peer", "address", "sentence"),
    [
        ("vm2", None, "takes an IP address, not 'vm2'"),
        ("10.57.0.2", "here", "takes an address with its prefix, as 10.57.0.1/24, not 'here'"),
        ("10.57.0.2", "10.57.0.1", "10.57.0.2 cannot be reached from 10.57.0.1"),
        ("10.57.0.2", "10.57.0.2/24", "it is not another address of that prefix"),
        ("10.57.0.2", "fd00::1/64", "10.57.0.2 cannot be reached from fd00::1/64"),
    ],
)
def test_what_cannot_be_is_said(peer: str, address: str | None, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        checked(peer, address)
