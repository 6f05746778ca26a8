# SPDX-License-Identifier: Apache-2.0
"""The kernel's tests of TC (tools/testing/selftests/tc-testing), unmodified, in a node."""
