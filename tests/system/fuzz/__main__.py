# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.system.fuzz --messages N --sysfs M``: a long campaign, with progress; as root."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.results import record
from tests.system.fuzz.campaign import run


def main() -> int:
    """Run it; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.fuzz")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--messages", type=int, default=1_000_000, help="messages fed to the daemon's dispatch")
    parser.add_argument("--sysfs", type=int, default=100_000, help="writes to files of /sys meanwhile")
    parser.add_argument("--sends", type=int, default=50_000, help="messages that a program in the node sends meanwhile")
    parser.add_argument("--record", action="store_true", help="record the outcome for docs/fidelity.md")
    given = parser.parse_args()

    def progress(told: dict[str, Any]) -> None:
        rest = {key: told[key] for key in ("sent", "reached", "unknown", "seconds", "memory", "objects", "files")}
        print(
            f"{rest} tracebacks={len(told['tracebacks'])} trouble={len(told['trouble'])}", file=sys.stderr, flush=True
        )

    outcome = run(Path(f"/run/t-fuzz-{os.getpid()}"), given.seed, given.messages, given.sysfs, given.sends, progress)
    complaints = outcome.complaints()
    print(json.dumps({"fed": outcome.fed, "written": outcome.written, "sent": outcome.sent}, indent=1))
    for complaint in complaints:
        print(f"---- {complaint[:3000]}", file=sys.stderr)
    if given.record:
        counts = {"messages": outcome.fed["sent"], "writes": given.sysfs, "sends": given.sends}
        record("fuzz", {**counts, "complaints": len(complaints)})
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
