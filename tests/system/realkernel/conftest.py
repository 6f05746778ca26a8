# SPDX-License-Identifier: Apache-2.0
"""The kernel to compare with is a package that some distributions do not have."""

from __future__ import annotations

import pytest

from tests.system.packages import skip_without


@pytest.fixture(autouse=True, scope="session")
def _kernel() -> None:
    skip_without("user-mode-linux")
