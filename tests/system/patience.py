# SPDX-License-Identifier: Apache-2.0
"""How long a test waits for what must happen."""

from __future__ import annotations

from typing import Final

PATIENCE: Final = 180.0
"""Seconds after which what is waited for has failed: far longer than it takes on a machine that is busy many times
over."""
