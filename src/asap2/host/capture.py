# SPDX-License-Identifier: Apache-2.0
"""A host's inventory in a file, to look at it elsewhere: readable JSON, without secrets, read strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asap2.errors import UsageError
from asap2.host.inventory import Host
from asap2.host.records import RecordError, from_data, to_data

FORMAT = "asap2 host capture 1"


def as_data(host: Host) -> dict[str, Any]:
    """*host* as what JSON carries."""
    return {"format": FORMAT, **to_data(host)}


def host_of(data: Any, where: str) -> Host:
    """The host that :func:`as_data` made *data* of; UsageError when it did not. *where* is what to call the source."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UsageError(f"{where} is not a capture that this version reads; `asap2 host capture FILE` makes one")
    try:
        return from_data(Host, {key: value for key, value in data.items() if key != "format"})
    except RecordError as error:
        raise UsageError(f"{where} is not a whole capture: {error}") from None


def write(host: Host, path: Path) -> None:
    """Write *host* to a file."""
    path.write_text(json.dumps(as_data(host), indent=1) + "\n")


def read(path: Path) -> Host:
    """Read a file that :func:`write` wrote; UsageError when it is another."""
    try:
        data = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise UsageError(f"{path} is not a capture: not valid JSON") from None
    return host_of(data, str(path))
