# SPDX-License-Identifier: Apache-2.0
"""Which PFs a command is about: those that are named, or all."""

from __future__ import annotations

from collections.abc import Iterable

from asap2.errors import UsageError
from asap2.host.inventory import Host, Pf


def choose(host: Host, names: Iterable[str]) -> tuple[Pf, ...]:
    """The PFs of *host* that *names* (network devices, PCI addresses) name, all when there are none; UsageError for a
    name that is none of them."""
    chosen = []
    for name in names:
        pf = host.pf(name)
        if pf is None:
            raise UsageError(not_a_pf(host, name))
        if pf not in chosen:
            chosen.append(pf)
    return tuple(chosen) or host.pfs


def not_a_pf(host: Host, name: str) -> str:
    """The sentence that says what *name* is instead of a PF."""
    for pf in host.pfs:
        for vf in pf.vfs:
            if name in (vf.address, vf.address.removeprefix("0000:"), vf.netdev):
                return f"{name} is VF {vf.index} of {pf.name}; name the PF {pf.name} instead"
        for number, netdev in host.representors(pf):
            if name == netdev.name:
                return f"{name} is the representor of VF {number} of {pf.name}; name the PF {pf.name} instead"
    known = ", ".join(f"{pf.name} ({pf.address})" for pf in host.pfs) or "none"
    if host.netdev(name):
        return f"{name} is not a switchdev NIC: it has neither SR-IOV nor an eSwitch; such PFs here: {known}"
    return f"there is no PF {name!r} here; such PFs here: {known}"
