# SPDX-License-Identifier: Apache-2.0
"""What nova and neutron said of the settings, as frozen data that rules are functions of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from asap2.host.inventory import Host, Pf, Vf

SPEC_OPTIONS = ("device_spec", "passthrough_whitelist", "pci_passthrough_whitelist")


@dataclass(frozen=True, slots=True)
class Entry:
    """A setting, and what the service says of it (:func:`asap2.openstack.config.check.oracle.judged`)."""

    service: str
    path: str
    line: int
    section: str
    key: str
    value: str
    known: str
    now: tuple[str, str] | None = None
    elsewhere: tuple[str, ...] = ()
    like: str | None = None
    section_like: str | None = None
    error: str | None = None
    removal: str | None = None
    multiple: bool = False
    opaque: bool = False

    @property
    def place(self) -> str:
        """As compilers name it."""
        return f"{self.path}:{self.line}"

    @property
    def option(self) -> tuple[str, str]:
        """Section and name that the service takes it for."""
        section = self.section if self.section == "DEFAULT" else self.section.lower()
        return self.now or (section, self.key.replace("-", "_"))


@dataclass(frozen=True, slots=True)
class Spec:
    """An entry of device_spec: nova's refusal, or its keys, those of them that nova ignores (with what may be meant),
    and the PCI addresses of devices that it matches."""

    path: str
    line: int
    text: str
    refusal: str | None = None
    data: dict[str, Any] | None = None
    unknown: tuple[tuple[str, str | None], ...] = ()
    matches: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """As compilers name it."""
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Settings:
    """All. ``filters`` are the names that nova has, ``host`` is the machine that they are for, if it is known, with
    ``pfs``."""

    entries: tuple[Entry, ...]
    specs: tuple[Spec, ...] = ()
    filters: tuple[str, ...] = ()
    parse_errors: tuple[tuple[str, int, str], ...] = ()
    unlisted: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    host: Host | None = None
    pfs: tuple[Pf, ...] = ()

    def all(self, service: str, section: str, key: str) -> Iterator[Entry]:
        """The settings of an option, by its present name."""
        for one in self.entries:
            if one.service == service and one.known in ("yes", "old") and one.option == (section, key):
                yield one

    def last(self, service: str, section: str, key: str) -> Entry | None:
        """The setting that counts of an option that has one value."""
        return next(iter(reversed(list(self.all(service, section, key)))), None)

    def listed(self, service: str, section: str, key: str) -> list[str]:
        """The value of an option that is a list."""
        one = self.last(service, section, key)
        return [word.strip() for word in one.value.split(",") if word.strip()] if one else []

    def vf(self, address: str) -> tuple[Pf, Vf] | None:
        """The VF at a PCI address, with its PF."""
        for pf in self.pfs:
            for vf in pf.vfs:
                if vf.address == address:
                    return pf, vf
        return None


def entry(service: str, data: dict[str, Any]) -> Entry:
    """An entry of an oracle's answer."""
    return Entry(
        service=service,
        path=data["path"],
        line=data["line"],
        section=data["section"],
        key=data["key"],
        value=data["value"],
        known=data["known"],
        now=tuple(data["now"]) if "now" in data else None,
        elsewhere=tuple(data.get("elsewhere", ())),
        like=next(iter(data.get("like", ())), None),
        section_like=next(iter(data.get("sections_like", ())), None),
        error=data.get("error"),
        removal=data.get("removal"),
        multiple=data.get("multiple", False),
        opaque=data.get("opaque", False),
    )


def spec(data: dict[str, Any]) -> Spec:
    """A spec of an oracle's answer."""
    return Spec(
        path=data["path"],
        line=data["line"],
        text=data["text"],
        refusal=data.get("refusal"),
        data=data.get("data"),
        unknown=tuple((key, next(iter(like), None)) for key, like in data.get("unknown", {}).items()),
        matches=tuple(data.get("matches", ())),
    )
