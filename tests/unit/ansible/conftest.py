# SPDX-License-Identifier: Apache-2.0
"""The collection where Python and Ansible find it, ``ansible_collections/asap2/offload`` in a directory of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

COLLECTION = Path(__file__).resolve().parents[3] / "ansible"


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """That directory; also one of those that modules are imported from."""
    place = tmp_path_factory.mktemp("collections")
    (place / "ansible_collections" / "asap2").mkdir(parents=True)
    (place / "ansible_collections" / "asap2" / "offload").symlink_to(COLLECTION)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        yield place
