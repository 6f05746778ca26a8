# SPDX-License-Identifier: Apache-2.0
"""A node's daemon under random messages and writes: see :mod:`tests.system.fuzz.campaign`."""
