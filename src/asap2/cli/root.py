# SPDX-License-Identifier: Apache-2.0
"""Who is not root is told so before anything is done, in one sentence for all commands."""

from __future__ import annotations

import os

from asap2.errors import Asap2Error


def need_root(command: str, instead: str = "") -> None:
    """Raise Asap2Error unless the user is root, whom *command* needs; *instead* is what else helps."""
    if os.geteuid():
        raise Asap2Error(f"this needs root; say `sudo {command} …`{instead}")
