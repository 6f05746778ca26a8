# SPDX-License-Identifier: Apache-2.0
"""All the checks, in the order in which a person would look."""

from __future__ import annotations

from collections.abc import Iterable

from asap2.host.check import eswitch, nic, platform, surroundings, switch
from asap2.host.check.finding import Finding, Verdict
from asap2.host.inventory import Host, Pf

CHECKS = (*platform.CHECKS, *nic.CHECKS, *eswitch.CHECKS, *switch.CHECKS, *surroundings.CHECKS)


def audit(host: Host, pfs: tuple[Pf, ...]) -> list[Finding]:
    """The findings of every check on *host*, as far as *pfs* are concerned."""
    return [finding for check in CHECKS for finding in check(host, pfs)]


def summary(findings: Iterable[Finding]) -> dict[Verdict, int]:
    """The number of findings of each verdict."""
    counts = dict.fromkeys(Verdict, 0)
    for finding in findings:
        counts[finding.verdict] += 1
    return counts
