# SPDX-License-Identifier: Apache-2.0
"""Versions as programs write them."""

from __future__ import annotations

import pytest

from asap2.host.versions import at_least, numbers, text


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ("6.1.0-13-amd64", (6, 1, 0)),
        ("v6.9", (6, 9)),
        ("4.18.0-553.el8.x86_64", (4, 18, 0)),
        ("16.21.0338", (16, 21, 338)),
        ("2.17.9", (2, 17, 9)),
        ("3.1.0", (3, 1, 0)),
        ("unknown", ()),
    ],
)
def test_numbers_are_read(version: str, found: tuple[int, ...]) -> None:
    assert numbers(version) == found


@pytest.mark.parametrize(
    ("version", "minimum", "enough"),
    [
        ("4.13.0-rc5", (4, 13), True),
        ("4.12.14", (4, 13), False),
        ("5.4", (4, 13), True),
        ("16.21.0338", (16, 21, 338), True),
        ("16.21.0337", (16, 21, 338), False),
        ("14.32.1010", (14, 21, 338), True),
        ("2.8", (2, 8, 0), True),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, minimum: tuple[int, ...], enough: bool) -> None:
    assert at_least(version, minimum) is enough
    assert text(minimum)
