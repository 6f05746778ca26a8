# SPDX-License-Identifier: Apache-2.0
"""``asap2 host`` on the host that a module runs on: its words, its JSON, and its failures, each one sentence."""

from __future__ import annotations

import json
from typing import Any

ARGUMENTS: dict[str, Any] = {"program": {"type": "str", "default": "asap2"}}
"""The options that all modules have."""
NAME = "asap2: "
"""What ``asap2`` begins the sentence with that it fails with."""

ERROR = "urn:asap2:error:"
"""How the schema of an answer begins that is no more than an error."""


def text_of(changes: list[dict[str, str]], side: str) -> str:
    """One side, "before" or "after", of *changes* for a diff: a line for each setting."""
    return "".join(f"{one['what']}: {one[side]}\n" for one in changes)


def diff_of(changes: list[dict[str, str]]) -> dict[str, str]:
    """*changes* as what Ansible shows with ``--diff``."""
    return {
        "before_header": "as it is",
        "after_header": "as it is to be",
        "before": text_of(changes, "before"),
        "after": text_of(changes, "after"),
    }


def sentence(stderr: str) -> str | None:
    """The sentence that ``asap2`` failed with, without its name before it; None when it said none."""
    said = [line[len(NAME) :] for line in stderr.splitlines() if line.startswith(NAME)]
    return said[-1] if said else None


class Host:
    """Runs ``asap2 host`` for *module*, which fails with a sentence when that does."""

    def __init__(self, module: Any) -> None:
        self.module = module
        program = module.params["program"]
        self.program = module.get_bin_path(program)
        if self.program is None:
            module.fail_json(
                msg=f"there is no program {program} on this host; install asap2 there (the role offload does, "
                "from offload_wheel), or say where it is with the option program"
            )

    def data(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Exit status and what ``asap2 host WORDS --json`` printed; the module fails with an error, or without JSON."""
        command = [self.program, "host", *words, "--json"]
        status, stdout, stderr = self.module.run_command(command)
        try:
            data: dict[str, Any] = json.loads(stdout)
            if data.get("schema", "").startswith(ERROR):
                self.module.fail_json(msg=sentence(stderr) or data["error"], rc=status)
        except ValueError:
            why = sentence(stderr)
            if why is not None:
                self.module.fail_json(msg=why, rc=status)
            self.module.fail_json(
                msg=f"`{' '.join(command)}` printed no JSON, and no reason", rc=status, stdout=stdout, stderr=stderr
            )
        return status, data
