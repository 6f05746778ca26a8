# SPDX-License-Identifier: Apache-2.0
"""Whether a daemon can take up what an earlier one has kept: both must write it alike.

The file ``version`` beside the state says how it is written. A daemon that finds another version there, or state that
it cannot read, refuses the node: it writes why, in one sentence, into the file ``refused`` of its directory and ends.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from pathlib import Path
from typing import Final

from asap2.nic.function import Pf, Vf
from asap2.nic.silicon import connection_records, maps

FORMAT: Final = 3
"""Of the driver's snapshot and of the journals. tests/unit/nic/test_kept_state.py says when to raise it."""
VERSION, REFUSED = "version", "refused"
REMEDY = "`asap2 lab down`, then `asap2 lab up`, recreates the node"


class ForeignStateError(Exception):
    """The state is not this program's; the text is one sentence that says so and what to do."""


def version() -> str:
    """How this program writes state: its own files, what it keeps of PFs and VFs, and the maps that the eBPF program
    shares with it."""
    layout = hashlib.sha256(Path(maps.__file__).with_name("generated.h").read_bytes())
    layout.update(repr((Pf.kept, Vf.kept)).encode())
    for name, record in sorted((vars(maps) | vars(connection_records)).items()):
        if isinstance(record, type) and issubclass(record, ctypes.Structure):
            fields = [
                (field, kind.__name__, ctypes.sizeof(kind)) for field, kind, *_ in getattr(record, "_fields_", ())
            ]
            layout.update(repr((name, fields)).encode())
    return f"{FORMAT} {layout.hexdigest()[:16]}"


def claim(state: Path) -> None:
    """Note in the directory *state* that this program writes there. ForeignStateError when another one did."""
    file, ours = state / VERSION, version()
    if not any(state.iterdir()):
        part = file.with_suffix(".part")
        part.write_text(ours)
        os.rename(part, file)
    if not file.exists() or file.read_text() != ours:
        raise ForeignStateError(f"the node was made by another version of asap2: {REMEDY}")


def refuse(directory: Path, why: str) -> None:
    """Note in the node's directory why no daemon of this version serves it."""
    (directory / REFUSED).write_text(f"{why}\n")
