# SPDX-License-Identifier: Apache-2.0
"""What all tests have in common."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes depends on what else the machine does: that is for no test to judge.
settings.register_profile("asap2", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("asap2")
