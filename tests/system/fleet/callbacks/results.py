# SPDX-License-Identifier: Apache-2.0
"""A callback plugin of Ansible: what came of each task on each host goes to the file FLEET_RESULTS as JSON lines."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: results
type: notification
short_description: Results as JSON lines
description: Writes what came of each task on each host to the file that FLEET_RESULTS names.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Writes as results come."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "results"

    def _write(self, outcome: str, result: Any) -> None:
        one = {
            "host": result._host.get_name(),
            "action": result._task.action,
            "outcome": outcome,
            "result": result._result,
        }
        with open(os.environ["FLEET_RESULTS"], "a") as file:
            file.write(json.dumps(one, default=str) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        """It worked."""
        self._write("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ARG002
        """It failed."""
        self._write("failed", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """The host was not reached."""
        self._write("unreachable", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """It was skipped."""
        self._write("skipped", result)
