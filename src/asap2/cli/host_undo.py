# SPDX-License-Identifier: Apache-2.0
"""``asap2 host undo [--dry-run] [--force]``."""

from __future__ import annotations

from typing import Annotated

from asap2.cli import typer
from asap2.cli.host_setup import DryRun
from asap2.cli.host_subject import AsJson
from asap2.cli.root import need_root

app = typer.Typer()


@app.command()
def undo(
    dry_run: DryRun = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on even if the host uses VFs, or a bridge has ports of others.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Restore the state before the first `asap2 host setup`. Orphaned flower filters and persist's files go."""
    need_root("asap2 host")
    from asap2.cli.host_steps import Shown
    from asap2.host.setup.hands import Hands
    from asap2.host.setup.journal import exclusively
    from asap2.host.setup.persist import remove, there
    from asap2.host.setup.run import Planned, prepare_undo
    from asap2.host.setup.run import undo as do

    shown = Shown(as_json, "undo")
    with shown.interruptible(), exclusively(), Hands() as hands:
        if dry_run:
            shown.planned(prepare_undo(hands, force=force) or Planned(), False)
            files = [str(path) for path in there()]
            for path in files if not as_json else ():
                shown.say(f"would remove {path}")
            shown.end({"changed": False, "removed": files, "left": []})
            return 0
        outcome = do(hands, shown, force=force)
        gone = [str(path) for path in remove()]
    for path in gone if not as_json else ():
        shown.say(f"removed {path}")
    if outcome is None:
        data = {"changed": bool(gone), "removed": gone, "left": []}
        shown.end(data, "nothing to undo: no `asap2 host setup` was done here")
        return 0
    left = list(outcome.left)
    data = {"changed": bool(outcome.steps or gone), "removed": gone, "left": left}
    shown.end(data, "not everything is as it was before" if left else "everything is as it was before")
    for words in left if not as_json else ():
        shown.say(f"not as it was: {words}")
    return 1 if left else 0


command = typer.get_command(app)
