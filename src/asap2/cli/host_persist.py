# SPDX-License-Identifier: Apache-2.0
"""``asap2 host persist [--remove] [--dry-run] [--json]``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from asap2.cli import typer
from asap2.cli.host_subject import AsJson
from asap2.cli.root import need_root

if TYPE_CHECKING:
    from asap2.host.setup.persist import Written

app = typer.Typer()


@app.command()
def persist(
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove the files; the current setup stays until the next boot.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the files without writing them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Set NICs up at each boot as they are now, with a systemd unit and udev rules. Open vSwitch remembers its own
    settings."""
    need_root("asap2 host")
    from asap2.host.observe import observe
    from asap2.host.setup import persist as files
    from asap2.output import say

    if remove:
        found = files.removes()
        gone = [] if dry_run else files.remove()
        if as_json:
            _tell(found, dry_run)
            return
        for path in gone:
            say(f"removed {path}")
        for one in found if dry_run else ():
            say(f"would remove {one.path}")
        if not found:
            say("nothing to remove: `asap2 host persist` has written nothing here")
        return
    host = observe(openflow=False)
    found = files.writes(host)
    if doubt := files.doubt():
        say(f"warning: {doubt}; install asap2 in /opt or from a package", file=sys.stderr)
    if as_json:
        if found and not dry_run:
            files.write(host)
        _tell(found, dry_run)
        return
    if dry_run:
        for path, content in files.files(host).items():
            say(f"=== {path}\n{content}")
        return
    files.write(host)
    for one in found:
        say(f"wrote {one.path}")
    if not found:
        say("nothing to do: the files are there already")


def _tell(found: list[Written], dry_run: bool) -> None:
    from asap2.answers import answer
    from asap2.host.records import to_data

    answer("host-persist", {"changed": bool(found) and not dry_run, "files": to_data(found)})


command = typer.get_command(app)
