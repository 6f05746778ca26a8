# SPDX-License-Identifier: Apache-2.0
"""Numbers as people read them."""

from __future__ import annotations

import pytest

from asap2.quantities import significant


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [
        (1093.7, 3, "1,094"),
        (999.7, 3, "1,000"),
        (140.2, 2, "140"),
        (99.6, 2, "100"),
        (18.849, 3, "18.8"),
        (1.0, 2, "1"),
        (0.00035, 2, "0.00035"),
        (0.0000123, 2, "0.000012"),
        (0.0, 3, "0"),
    ],
)
def test_significant_digits_come_without_an_exponent(number: float, digits: int, text: str) -> None:
    assert significant(number, digits) == text
