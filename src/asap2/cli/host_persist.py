# SPDX-License-Identifier: Apache-2.0
"""``asap2 host persist [--remove] [--dry-run]``."""

from __future__ import annotations

from typing import Annotated

import typer

from asap2.cli.host_subject import need_root

app = typer.Typer(add_completion=False)


@app.command()
def persist(
    remove: Annotated[
        bool, typer.Option("--remove", help="Take the files away; what is set up stays, until a boot.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the files, write none.")] = False,
) -> None:
    """Have NICs set up at each boot as they are now: a systemd unit and udev rules. Open vSwitch remembers by
    itself."""
    need_root()
    from asap2.host.observe import observe
    from asap2.host.setup import persist as files

    if remove:
        gone = files.remove()
        for path in gone:
            print(f"removed {path}")
        if not gone:
            print("nothing to remove: `asap2 host persist` has written nothing here")
        return
    host = observe(openflow=False)
    if dry_run:
        for path, content in files.files(host).items():
            print(f"=== {path}\n{content}")
        return
    for path in files.write(host):
        print(f"wrote {path}")


command = typer.main.get_command(app)
