# SPDX-License-Identifier: Apache-2.0
"""``[pci] device_spec`` of a NIC: which VFs nova may give to guests, and for which physical network.

An entry with a PF's address matches its VFs however many there will be, and with the VFs' device id not the PF itself,
which a guest could else get (nova.pci.devspec). A VF serves either one physical network or, with ``null``, networks
that are tunnels: nova compares the entry's value with the network's.
"""

from __future__ import annotations

import json
import re
from itertools import groupby
from typing import Any

from asap2.openstack.config.nodes import Nic

_ADDRESS = re.compile(r"([0-9a-f]{4}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")


def device_specs(nic: Nic, network: str | None, tunnel_vfs: int | None) -> list[dict[str, Any]]:
    """The entries of *nic*, whose VFs are for the physical *network* but the last *tunnel_vfs* (None: all)."""
    if tunnel_vfs is None:
        return [_whole(nic, None)]
    if not tunnel_vfs:
        return [_whole(nic, network)]
    split = len(nic.vfs) - tunnel_vfs
    return _some(nic, nic.vfs[:split], network) + _some(nic, nic.vfs[split:], None)


def _ids(nic: Nic) -> dict[str, Any]:
    vendor = {"vendor_id": f"{nic.vendor:04x}"}
    return vendor | {"product_id": f"{nic.vf_device:04x}"} if nic.vf_device else vendor


def _whole(nic: Nic, network: str | None) -> dict[str, Any]:
    return {**_ids(nic), "address": nic.pf, "physical_network": network}


def _some(nic: Nic, vfs: tuple[str, ...], network: str | None) -> list[dict[str, Any]]:
    """An entry for each slot (device) of a bus: functions are regular expressions, which have no ``or`` over slots."""
    places = [found.groups() for vf in vfs if (found := _ADDRESS.fullmatch(vf))]
    return [
        {
            **_ids(nic),
            "address": {"domain": domain, "bus": bus, "slot": slot, "function": _functions([one[3] for one in each])},
            "physical_network": network,
        }
        for (domain, bus, slot), each in groupby(places, key=lambda place: place[:3])
    ]


def _functions(numbers: list[str]) -> str:
    return numbers[0] if len(numbers) == 1 else f"[{''.join(numbers)}]"


def text(spec: dict[str, Any]) -> str:
    """*spec* as the option's value."""
    return json.dumps(spec, separators=(", ", ": "))
