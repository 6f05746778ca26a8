# SPDX-License-Identifier: Apache-2.0
"""A step that could not be done."""

from __future__ import annotations


class StepError(Exception):
    """A step could not be done, or has no effect; the text says why."""
