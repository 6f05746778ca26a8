# SPDX-License-Identifier: Apache-2.0
"""Text written to sysfs is read as the kernel reads it."""

from __future__ import annotations

import errno

import pytest

from asap2.nic.faces.sysfs import kstrto
from tests.unit.nic.backend import refused


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"4\n", 4),
        (b"4", 4),
        (b"+4\n", 4),
        (b"0x10\n", 16),
        (b"010\n", 8),
        (b"0\n", 0),
        (b"4\0junk", 4),
        (b"65535", 65535),
    ],
)
def test_a_number_is_decimal_hexadecimal_or_octal(text: bytes, value: int) -> None:
    assert kstrto.unsigned(text, 16) == value


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"four\n", b" 4\n", b"4 \n", b"-1\n", b"4\n\n", b"08\n", b"0x\n", b"4x", b"++4", b"\xff"]
)
def test_other_text_is_no_number(text: bytes) -> None:
    with refused(errno.EINVAL):
        kstrto.unsigned(text, 16)


@pytest.mark.parametrize("text", [b"65536\n", b"0xffffffffffffffffffff\n", b"9" * 4000])
def test_a_number_that_does_not_fit_is_out_of_range(text: bytes) -> None:
    with refused(errno.ERANGE):
        kstrto.unsigned(text, 16)


def test_flags() -> None:
    assert all(kstrto.boolean(text) for text in (b"1\n", b"y", b"Yes", b"true", b"on", b"ON\n"))
    assert not any(kstrto.boolean(text) for text in (b"0\n", b"n", b"No", b"false", b"off", b"oF"))
    for text in (b"", b"\n", b"2", b"o", b"maybe"):
        with refused(errno.EINVAL):
            kstrto.boolean(text)


def test_a_line_is_compared_without_one_newline_and_what_follows_a_nul() -> None:
    assert [kstrto.line(text) for text in (b"a\n", b"a", b"a\n\n", b"a\0b", b"")] == ["a", "a", "a\n", "a", ""]
