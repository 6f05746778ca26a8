# SPDX-License-Identifier: Apache-2.0
"""What the tests need that tests of labs need, too."""

from tests.system.conftest import _as_root, _root_is_a_mount_point
from tests.system.lab.conftest import place

__all__ = ["_as_root", "_root_is_a_mount_point", "place"]
