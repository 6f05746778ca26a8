# SPDX-License-Identifier: Apache-2.0
"""The fleet, brought up once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.fleet.fleet import Fleet


@pytest.fixture(scope="package")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Eight hypervisors as the lab brings them up, and Ansible to manage them."""
    with Fleet.managed(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet
