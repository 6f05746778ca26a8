# SPDX-License-Identifier: Apache-2.0
"""Options that many verbs have."""

from __future__ import annotations

from typing import Annotated

from asap2.cli import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON (docs/json.md).")]
