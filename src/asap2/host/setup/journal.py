# SPDX-License-Identifier: Apache-2.0
"""The state before the first setup, saved to disk before anything changes, so that it can always be restored.

The file is in /etc and survives a reboot, as do the settings in Open vSwitch's database and the files of ``persist``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asap2.errors import Asap2Error
from asap2.host.inventory import Bridge, Host
from asap2.host.records import RecordError, from_data, to_data
from asap2.host.setup.wanted import Wanted

DIRECTORY = Path("/etc/asap2")
PATH = DIRECTORY / "undo.json"
LOCK = Path("/run/asap2-host.lock")
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Journal:
    """``before`` is the host before the first setup; since then ``pfs`` (addresses), ``bridges`` (created ones) and
    ``options`` were touched. ``restart_pending``: the switch has not yet read an option that changed. ``wanted`` is the
    last request, ``finished`` whether it was completed."""

    before: Host
    wanted: Wanted
    pfs: tuple[str, ...] = ()
    bridges: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    restart_pending: bool = False
    finished: bool = False
    format: int = FORMAT


def load(path: Path = PATH) -> Journal | None:
    """The journal; None if there is none. Raises Asap2Error if it cannot be read."""
    try:
        return from_data(Journal, json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, RecordError) as error:
        raise Asap2Error(f"{path} cannot be read ({error}); move it away to forget what was before") from None


def save(journal: Journal | None, path: Path = PATH) -> None:
    """Write the journal atomically; None removes it, and its directory if that is empty."""
    if journal is None:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()
        return
    path.parent.mkdir(mode=0o755, exist_ok=True)
    new = path.with_suffix(".new")
    with new.open("w") as file:
        json.dump(to_data(journal), file)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def exclusively(path: Path = LOCK) -> Iterator[None]:
    """Hold the lock against other setups and undos; raises Asap2Error if one is running."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Asap2Error("another `asap2 host setup` or `undo` is under way") from None
        yield


def extended(
    journal: Journal | None, now: Host, wanted: Wanted, pfs: set[str], bridges: set[str], options: set[str]
) -> Journal:
    """The journal for a setup that touches *pfs* and *options*, and creates missing *bridges*.

    What earlier setups touched keeps its state from before them; the rest has its state of *now*. At boot
    (``nic_only``) the last request is kept, too.
    """
    made = {name for name in bridges if all(one.name != name for one in now.openvswitch.bridges)}
    if journal is None:
        return Journal(now, wanted, tuple(sorted(pfs)), tuple(sorted(made)), tuple(sorted(options)))
    more = not (pfs <= set(journal.pfs) and made <= set(journal.bridges) and options <= set(journal.options))
    return dataclasses.replace(
        journal,
        before=_merged(journal, now, pfs) if more else journal.before,
        wanted=journal.wanted if wanted.nic_only else wanted,
        pfs=tuple(sorted({*journal.pfs, *pfs})),
        bridges=tuple(sorted({*journal.bridges, *made})),
        options=tuple(sorted({*journal.options, *options})),
        finished=False,
    )


def _merged(journal: Journal, now: Host, pfs: set[str]) -> Host:
    """*now*, but with the earlier state of what *journal* says was touched. That includes TC, except on *pfs* not
    touched so far."""
    before, switch = journal.before, now.openvswitch
    new = {netdev.name for address in pfs - set(journal.pfs) for netdev in devices(now, address)}
    touched = [pf for pf in before.pfs if pf.address in journal.pfs]
    theirs = {netdev.name for host in (before, now) for pf in touched for netdev in devices(host, pf.address)}
    merged = {pf.address: pf for pf in now.pfs} | {pf.address: pf for pf in touched}
    options = {**dict(switch.other_config), **{key: before.openvswitch.option(key) for key in journal.options}}
    ports_before = {name for bridge in before.openvswitch.bridges for name in interfaces(bridge)}
    ours = {name for name in theirs if name not in ports_before}
    bridges = tuple(_without(bridge, ours) for bridge in switch.bridges if bridge.name not in journal.bridges)
    return dataclasses.replace(
        now,
        pfs=tuple(merged[address] for address in sorted(merged)),
        netdevs=(
            *(one for one in now.netdevs if one.name not in theirs),
            *(one for one in before.netdevs if one.name in theirs),
        ),
        qdiscs=(
            *(one for one in before.qdiscs if one.netdev not in new),
            *(one for one in now.qdiscs if one.netdev in new),
        ),
        filters=before.filters,
        openvswitch=dataclasses.replace(
            switch,
            other_config=tuple((key, value) for key, value in sorted(options.items()) if value is not None),
            bridges=bridges,
        )
        if switch.database
        else before.openvswitch,
    )


def devices(host: Host, address: str) -> list[Any]:
    """The network devices of the PF at *address*: uplink, representors, VFs."""
    pf = host.pf(address)
    if pf is None:
        return []
    vfs = [host.netdev(vf.netdev) for vf in pf.vfs]
    return [one for one in (host.uplink(pf), *dict(host.representors(pf)).values(), *vfs) if one is not None]


def interfaces(bridge: Bridge) -> list[str]:
    """The names of the interfaces in *bridge*."""
    return [one.name for port in bridge.ports for one in port.interfaces]


def _without(bridge: Bridge, names: set[str]) -> Bridge:
    ports = tuple(port for port in bridge.ports if not names & {one.name for one in port.interfaces})
    return dataclasses.replace(bridge, ports=ports)
