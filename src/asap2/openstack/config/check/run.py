# SPDX-License-Identifier: Apache-2.0
"""The check: files are read, nova and neutron are asked, rules judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asap2.host.check.finding import Finding
from asap2.host.inventory import Host, Pf
from asap2.openstack.config.check import interpreter
from asap2.openstack.config.check.answers import Entry, Settings, Spec, entry, spec
from asap2.openstack.config.check.devstack import devstack
from asap2.openstack.config.check.findings import unknown, warn
from asap2.openstack.config.check.names import names
from asap2.openstack.config.check.network import network
from asap2.openstack.config.check.pci import pci
from asap2.openstack.config.check.reading import Reading, read

Ask = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Asks a service a question."""


def check(
    files: list[str], host: Host | None, pfs: tuple[Pf, ...], *, here: bool, python: str | None
) -> tuple[Settings, list[Finding]]:
    """The findings on *files* for *host* (None: not known), whose NICs are *pfs*; *here*: it is this machine."""
    reading = read(files)
    pythons = {service: interpreter.find(service, python) for service in reading.services}
    settings = asked(reading, host, pfs, here, lambda service, question: interpreter.ask(pythons[service], question))
    return settings, list(judged(settings, reading))


def asked(reading: Reading, host: Host | None, pfs: tuple[Pf, ...], here: bool, ask: Ask) -> Settings:
    """What the services say of what was read."""
    entries: list[Entry] = []
    specs: list[Spec] = []
    filters: tuple[str, ...] = ()
    errors: list[tuple[str, int, str]] = []
    unlisted: list[str] = []
    versions: list[tuple[str, str]] = []
    questions = [_question(service, reading, pfs, here) for service in reading.services]
    with ThreadPoolExecutor() as both:
        answers = list(both.map(ask, reading.services, questions))
    for service, answer in zip(reading.services, answers, strict=True):
        entries += [entry(service, one) for one in answer["entries"]]
        specs += [spec(one) for one in answer.get("specs", [])]
        filters += tuple(answer.get("filters", ()))
        errors += [(one["path"], one["line"], one["said"]) for one in answer["parse_errors"]]
        unlisted += answer["unlisted"]
        versions.append((service, answer["version"]))
    return Settings(tuple(entries), tuple(specs), filters, tuple(errors), tuple(unlisted), tuple(versions), host, pfs)


def _question(service: str, reading: Reading, pfs: tuple[Pf, ...], here: bool) -> dict[str, Any]:
    return {
        "service": service,
        "files": [{"path": path, "text": text} for path, text in reading.texts.get(service, {}).items()],
        "assignments": [dataclasses.asdict(one) for one in reading.assignments.get(service, [])],
        "devices": devices(pfs),
        "local": here,
    }


def devices(pfs: tuple[Pf, ...]) -> list[dict[str, Any]]:
    """*pfs* and their VFs as nova's drivers report PCI devices."""
    found: list[dict[str, Any]] = []
    for pf in pfs:
        vendor = f"{pf.vendor:04x}"
        own = {"address": pf.address, "vendor_id": vendor, "product_id": f"{pf.device:04x}", "dev_type": "type-PF"}
        found.append({**own, "netdev": pf.netdev, "vf_product_id": f"{pf.vf_device:04x}"})
        for vf in pf.vfs:
            ids = {"vendor_id": vendor, "product_id": f"{pf.vf_device:04x}", "parent_addr": pf.address}
            found.append({"address": vf.address, **ids, "dev_type": "type-VF", "netdev": vf.netdev})
    return found


def judged(settings: Settings, reading: Reading) -> Iterator[Finding]:
    """All findings, by rule."""
    yield from devstack(reading.devstacks)
    yield from names(settings)
    yield from pci(settings)
    yield from network(settings)
    if settings.specs and not settings.pfs:
        why = "whether device_spec matches is seen on the compute node, as root, or from its capture (--from)"
        yield unknown("device_spec.match", "no NICs are known to match it with", why)
    for said in settings.unlisted:
        why = "an installed package's list of options did not load: its options count as unknown"
        yield unknown("options", said, why)
    if not settings.entries and not settings.parse_errors:
        yield warn("file", "there is no setting in the files", "nothing was checked")
