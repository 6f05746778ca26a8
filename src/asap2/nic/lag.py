# SPDX-License-Identifier: Apache-2.0
"""VF LAG: the two ports of a NIC serve all of its VFs while a bond has both uplinks (mlx5/core/lag/lag.c).

What rules send to the bond leaves by the port of the eSwitch that they are in, or by the other one while that cannot
send. The silicon has a port for this (:attr:`.function.Pf.bonded_port`), so a port that fails changes no rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asap2.nic.function import Nic, Pf
    from asap2.nic.netdevs import NetDev

ACTIVE_BACKUP, XOR, LACP = 1, 2, 4
"""BOND_MODE_*: the modes that hardware can follow (bond_lag_tx_type: ACTIVEBACKUP, HASH)."""


@dataclass(frozen=True, slots=True)
class Bond:
    """A bond in the node: its BOND_MODE_*, and whether it sends by each of its ports, by their ifindex."""

    ifindex: int
    mode: int
    ports: Mapping[int, bool]


@dataclass(frozen=True, slots=True)
class Lag:
    """How a NIC's ports are bonded. *ifindex* is the bond's; 0: it was one, and is no more. *ways* has, for each
    eSwitch, the number of the port by which it sends, *idle* the ports from which nothing is to come (those that a bond
    of mode active-backup does not use)."""

    ifindex: int
    ways: tuple[int, ...]
    idle: frozenset[int] = frozenset()


def lag_of(nic: Nic, bonds: Iterable[Bond], uplinks: Mapping[int, Pf]) -> Lag | None:
    """How the ports of *nic* are bonded, whose *uplinks* are by ifindex; None: they are not (mlx5_lag_check_prereq,
    mlx5_handle_changeupper_event, mlx5_infer_tx_affinity_mapping)."""
    if len(nic.pfs) != 2 or not all(pf.bound and pf.switchdev for pf in nic.pfs):
        return None
    for bond in bonds:
        sends = {uplinks[port]: on for port, on in bond.ports.items() if port in uplinks}
        if len(bond.ports) != 2 or sends.keys() != set(nic.pfs):
            continue
        if bond.mode not in (ACTIVE_BACKUP, XOR, LACP):
            return None
        able = [pf.index for pf in nic.pfs if sends[pf]]
        ways = tuple(pf.index if sends[pf] or not able else able[0] for pf in nic.pfs)
        idle = {pf.index for pf in nic.pfs if not sends[pf]} if bond.mode == ACTIVE_BACKUP and able else ()
        return Lag(bond.ifindex, ways, frozenset(idle))
    return None


class Netdevs(Protocol):
    """What is asked of a node's netdevs."""

    def all(self) -> Iterable[NetDev]:
        """See :class:`asap2.nic.netdevs.NetDevs`."""

    def program(self, pf: Pf) -> None:
        """See :class:`asap2.nic.backend.Backend`."""


class Lags:
    """Follows the bonds of a node's NICs."""

    def __init__(self, nics: Iterable[Nic], bonds: Callable[[], Iterable[Bond]], netdevs: Netdevs) -> None:
        self._nics = [nic for nic in nics if len(nic.pfs) == 2]
        self._bonds = bonds
        self._netdevs = netdevs

    def follow(self) -> bool:
        """Links have changed; True when a NIC's ports are in another bond than before."""
        if not self._nics:
            return False
        bonds, devices, changed = list(self._bonds()), self._netdevs.all(), False
        for nic in self._nics:
            uplinks = {device.ifindex: pf for device in devices for pf in nic.pfs if device.function is pf}
            lag = lag_of(nic, bonds, uplinks)
            if lag is None and nic.lag is not None:
                lag = Lag(0, tuple(pf.index for pf in nic.pfs))
            if lag != nic.lag:
                before, nic.lag = nic.bond, lag
                changed |= before != nic.bond
                for pf in nic.pfs:
                    self._netdevs.program(pf)
        return changed
