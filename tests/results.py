# SPDX-License-Identifier: Apache-2.0
"""What the last recorded run of each long suite gave: ``results.json``, from which docs/fidelity.md is made.

Only a suite that has run to its end writes there, and only when asked (``--record``). A suite without an entry has not
been recorded; the page says so.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from asap2.version import version

PATH: Final = Path(__file__).with_name("results.json")


@dataclass(frozen=True, slots=True)
class Result:
    """A run: ``command`` as typed, ``counts`` by what they are of, ``of`` the version of what judges, if it has one,
    ``kernel`` the machine's release, ``version`` that of asap2, and the day as ISO 8601."""

    command: str
    counts: Mapping[str, int]
    of: str
    kernel: str
    version: str
    day: str


def record(name: str, counts: Mapping[str, int], of: str = "", path: Path = PATH) -> None:
    """Note that the suite *name* has run now, in this process, and what came of it."""
    words = [word for word in sys.orig_argv[1:] if word != "--record"]
    made = Result(
        command=shlex.join(["python", *words]),
        counts=dict(counts),
        of=of,
        kernel=os.uname().release.split("-")[0],
        version=version(),
        day=time.strftime("%Y-%m-%d", time.gmtime()),
    )
    kept = {key: asdict(one) for key, one in recorded(path).items()} | {name: asdict(made)}
    path.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")


def recorded(path: Path = PATH) -> dict[str, Result]:
    """The last recorded run of each suite."""
    return {name: Result(**one) for name, one in json.loads(path.read_text()).items()} if path.exists() else {}
