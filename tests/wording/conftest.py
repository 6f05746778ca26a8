# SPDX-License-Identifier: Apache-2.0
"""What the tests need that `make test` runs beside a real kernel, too."""

from tests.system.conftest import _as_root, _root_is_a_mount_point
from tests.system.realkernel.conftest import _kernel

__all__ = ["_as_root", "_kernel", "_root_is_a_mount_point"]
