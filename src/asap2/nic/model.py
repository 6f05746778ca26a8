# SPDX-License-Identifier: Apache-2.0
"""Device models: what each ConnectX says that it is and can do.

PCI ids are those of the PCI ID database (vendor 15b3); the virtual functions' device ids and the PSIDs are those of
Mellanox's published firmware.
"""

from __future__ import annotations

from dataclasses import dataclass

MELLANOX = 0x15B3
"""PCI vendor id of Mellanox Technologies."""


@dataclass(frozen=True, slots=True)
class Model:
    """One kind of NIC.

    ``device_id`` and ``vf_device_id`` are PCI device ids, ``max_rules`` eSwitch rules a NIC, ``part_number`` and
    ``product`` what the board's vital product data says, ``link_generation`` and ``link_width`` its PCI Express link.
    ``minimum_inline`` is the DEVLINK_ESWITCH_INLINE_MODE_* that its send queues need (0: none, and it cannot be set).
    """

    name: str
    device_id: int
    vf_device_id: int
    subsystem_id: int
    firmware: str
    board_id: str
    vxlan_offload: bool
    max_rules: int
    part_number: str = ""
    product: str = ""
    link_generation: int = 3
    link_width: int = 16
    minimum_inline: int = 0


MODELS = {
    m.name: m
    for m in (
        Model(
            "ConnectX-4 Lx",
            0x1015,
            0x1016,
            0x0003,
            "14.32.1010",
            "MT_2420110004",
            False,
            65536,
            "MCX4121A-ACAT",
            "CX4121A - ConnectX-4 LX SFP28",
            link_width=8,
            minimum_inline=1,
        ),
        Model(
            "ConnectX-5",
            0x1017,
            0x1018,
            0x0007,
            "16.35.4030",
            "MT_0000000008",
            True,
            262144,
            "MCX516A-CCAT",
            "CX516A - ConnectX-5 QSFP28",
        ),
        Model(
            "ConnectX-6 Dx",
            0x101D,
            0x101E,
            0x0016,
            "22.36.1010",
            "MT_0000000359",
            True,
            1048576,
            "MCX623106AN-CDAT",
            "ConnectX-6 Dx EN adapter card",
            link_generation=4,
        ),
    )
}
"""The models by the name that a topology uses."""


def model(name: str) -> Model:
    """The model called *name*; ValueError names the known ones."""
    try:
        return MODELS[name]
    except KeyError:
        raise ValueError(f"no NIC model {name!r}; known are {', '.join(MODELS)}") from None
