# SPDX-License-Identifier: Apache-2.0
"""The lab that the tests of `make test` trace in, too."""

from tests.system.trace.conftest import bench

__all__ = ["bench"]
