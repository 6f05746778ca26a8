# SPDX-License-Identifier: Apache-2.0
"""Who may see the picture."""

from __future__ import annotations

import pytest

from asap2.errors import UsageError
from asap2.view.access import Access, access

LOCAL = Access("127.0.0.1", True, None)
ELSEWHERE = Access("hv1.example", False, "right")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:9418", "localhost:1", "LOCALHOST", "localhost.", "[::1]:9418", "127.8.8.8"]
)
def test_a_loopback_name_is_this_server(host: str) -> None:
    assert LOCAL.host_allowed(host)


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.example", "127.0.0.1.evil.example:9418", "192.0.2.1:9418", "a b", "x@localhost", "localhost:"],
)
def test_a_name_that_a_site_could_have_made_is_not(host: str | None) -> None:
    assert not LOCAL.host_allowed(host)


def test_elsewhere_the_name_that_it_listens_at_and_addresses_are() -> None:
    assert ELSEWHERE.host_allowed("hv1.example:9418")
    assert ELSEWHERE.host_allowed("192.0.2.1:9418")
    assert not ELSEWHERE.host_allowed("evil.example:9418")


def test_only_the_own_page_opens_a_stream() -> None:
    assert LOCAL.origin_allowed("http://localhost:9418", "localhost:9418")
    assert LOCAL.origin_allowed(None, "localhost:9418")
    assert not LOCAL.origin_allowed("http://localhost:3000", "localhost:9418")
    assert not LOCAL.origin_allowed("null", "localhost:9418")


def test_the_token_must_be_the_right_one() -> None:
    assert LOCAL.token_allowed(None)
    assert ELSEWHERE.token_allowed("right")
    for wrong in (None, "", "righ", "rightt", 7, ["right"], "\ud800"):
        assert not ELSEWHERE.token_allowed(wrong)


def test_loopback_needs_no_token_and_every_other_address_a_new_one() -> None:
    assert access("127.0.0.1").token is None
    assert access("::1").url(80) == "http://[::1]:80/"
    first, second = access("0.0.0.0"), access("0.0.0.0")
    assert first.token
    assert first.token != second.token
    assert first.url(9).endswith(f":9/#token={first.token}")


@pytest.mark.parametrize("address", ["", "300.1.1.1", "x" * 300, "a\0b"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        access(address)
