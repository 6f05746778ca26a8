# SPDX-License-Identifier: Apache-2.0
"""Rules about names and values of options: services ignore what they do not know, and say nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from asap2.host.check.finding import Finding, listed
from asap2.openstack.config.check.answers import Entry, Settings
from asap2.openstack.config.check.findings import fail, warn

IGNORED = "a service ignores a setting that it does not know, and says nothing"
IN_MANY = ("connection", "host", "region_name", "user", "username", "password", "auth_type", "auth_url")
"""Options of so many sections that none is likely meant."""


def names(settings: Settings) -> Iterator[Finding]:
    """What is not read, or read as something else."""
    for path, line, said in settings.parse_errors:
        why = "oslo.config does not read a file with such a line, and the service does not start"
        yield fail("file", said, why, None, f"{path}:{line}")
    for one in settings.entries:
        yield from _one(one)
    yield from _twice(settings)


def _one(one: Entry) -> Iterator[Finding]:
    what = f"[{one.section}] {one.key}"
    if one.known == "no":
        yield from _unknown(one)
    elif one.known == "section":
        yield from _section(one)
    elif one.known == "old" and one.now:
        new = f"[{one.now[0]}] {one.now[1]}"
        why = "old names are read for some releases only"
        yield warn("old-name", f"{what} is an old name of {new}", why, f"write {new}", one.place)
    if one.error:
        why = f"{one.service} does not start with a value that its type refuses, or fails when it reads it"
        yield fail("value", f"{what} = {one.value}: {one.error}", why, None, one.place)
    if one.removal is not None:
        yield warn("goes-away", f"{what} is to be removed", one.removal or "no reason is given", None, one.place)


def _unknown(one: Entry) -> Iterator[Finding]:
    found = f"[{one.section}] has no {one.key}"
    if one.elsewhere:
        found += f"; {one.key} is of {_sections(one.elsewhere)}"
        fix = f"move it to [{one.elsewhere[0]}]" if len(one.elsewhere) == 1 else None
        yield fail("section", found, IGNORED, fix, one.place)
        return
    fix = f"is {one.like} meant?" if one.like else None
    yield fail("unknown-key", found, IGNORED, fix, one.place)


def _section(one: Entry) -> Iterator[Finding]:
    """An option in a section that nobody has: of a driver that is not installed here, or a mistake."""
    found = f"{one.service} has no section [{one.section}], for {one.key}"
    places = one.elsewhere if one.key not in IN_MANY else ()
    meant = one.section_like if one.section_like in places or not places else places[0]
    say = fail if meant else warn
    yield say("section", found, IGNORED, f"is [{meant}] meant?" if meant else None, one.place)


def _sections(names: tuple[str, ...]) -> str:
    return listed([f"[{name}]" for name in names], 3)


def _twice(settings: Settings) -> Iterator[Finding]:
    """Options with one value that a file sets more than once."""
    ours = [one for one in settings.entries if one.known == "yes" and not one.multiple]
    counts = Counter((one.path, one.option) for one in ours)
    for (path, option), count in counts.items():
        if count < 2:
            continue
        lines = [one for one in ours if (one.path, one.option) == (path, option)]
        found = f"[{option[0]}] {option[1]} is set {count} times, in lines {', '.join(str(one.line) for one in lines)}"
        yield warn("twice", found, "the last one counts", None, lines[-1].place)
