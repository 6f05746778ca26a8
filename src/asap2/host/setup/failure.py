# SPDX-License-Identifier: Apache-2.0
"""The error of a step."""

from __future__ import annotations


class StepError(Exception):
    """A step failed or had no effect; the text says why."""
