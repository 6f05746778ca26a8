# SPDX-License-Identifier: Apache-2.0
"""The health reporters of a device and of its ports: ``devlink health show``. Nothing here is ever ill.

Sources: devlink_nl_health_reporter_fill() in net/devlink/health.c; drivers/net/ethernet/mellanox/mlx5/core: health.c,
diag/reporter_vnic.c, en/reporter_tx.c, en/reporter_rx.c, en_rep.c, of Linux 6.12.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from asap2.netlink.tables.devlink import DEVLINK_PORT_FLAVOUR_PCI_VF
from asap2.nic.function import Function, Pf


class Reporter(NamedTuple):
    """A reporter: the milliseconds between two recoveries (None: it cannot recover), and whether it can dump."""

    name: str
    graceful_period: int | None = None
    dumps: bool = False


_VNIC: Final = Reporter("vnic")
_FW: Final = Reporter("fw", dumps=True)
_TX, _RX = (Reporter(name, 500, dumps=True) for name in ("tx", "rx"))
_FATAL: Final = {True: Reporter("fw_fatal", 60_000, dumps=True), False: Reporter("fw_fatal", 30_000, dumps=True)}
"""By whether it is that of a physical function."""


def of_device(function: Function) -> tuple[Reporter, ...]:
    """The reporters of a device, in the order of mlx5_init_one()."""
    return _FW, _FATAL[isinstance(function, Pf)], _VNIC


def of_port(port: Mapping[str, Any]) -> tuple[Reporter, ...]:
    """The reporters of a port: a representor's has but one, as mlx5e_rep_vnic_reporter_create() makes it."""
    return (_VNIC,) if port["port_flavour"] == DEVLINK_PORT_FLAVOUR_PCI_VF else (_TX, _RX)


def shown(
    handle: Mapping[str, Any], ports: Iterable[Mapping[str, Any]], function: Function
) -> Iterator[dict[str, Any]]:
    """What devlink gives back of each reporter of *function*, which *handle* names, and of its *ports*."""
    for reporter in of_device(function):
        yield {**handle, "health_reporter": _attributes(reporter)}
    for port in sorted(ports, key=lambda port: port["port_index"]):
        for reporter in of_port(port):
            yield {**handle, "port_index": port["port_index"], "health_reporter": _attributes(reporter)}


def _attributes(reporter: Reporter) -> dict[str, Any]:
    out: dict[str, Any] = {"name": reporter.name, "state": 0, "err_count": 0, "recover_count": 0}
    if reporter.graceful_period is not None:
        out |= {"graceful_period": reporter.graceful_period, "auto_recover": 1}
    return {**out, "auto_dump": 1} if reporter.dumps else out
