# SPDX-License-Identifier: Apache-2.0
"""Device models: what each ConnectX says that it is, and what its eSwitch can do.

PCI ids are those of the PCI ID database (vendor 15b3); the virtual functions' device ids, the PSIDs and the firmware
versions are those of Mellanox's published firmware. Capabilities have the names of mlx5's (include/linux/mlx5/
mlx5_ifc.h) in brackets; where the vendor publishes no figure, it is what boards with this firmware report or a round
number of its order, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass

MELLANOX = 0x15B3
"""PCI vendor id of Mellanox Technologies."""

MAX_DESTINATIONS = 32
"""Output ports of one rule (MLX5_MAX_FLOW_FWD_VPORTS, mlx5/core/eswitch.h)."""

MAX_VLANS = 2
"""VLAN actions of one rule (MLX5_FS_VLAN_DEPTH, include/linux/mlx5/fs.h)."""

PF_VECTORS = 64
"""MSI-X vectors of a physical function."""

VF_VECTORS, LEAST_VF_VECTORS, MOST_VF_VECTORS = 12, 2, 24
"""MSI-X vectors of a new virtual function, and the fewest and most that it can be given (mlx5 starts with half of the
most, so that some are left to give)."""


MAX_MTU = 9978
"""The largest MTU of a ConnectX's netdevs (mlx5e's max_mtu)."""
UPCALL_MTU = 65534
"""The MTU of the datapath's own device, where packets that were put together of fragments pass. It is shown as"""
SHOWN_UPCALL_MTU = 1500
"""what Open vSwitch's own device has in the kernel."""


@dataclass(frozen=True, slots=True)
class Model:
    """One kind of NIC.

    ``device_id`` and ``vf_device_id`` are PCI device ids, ``max_rules`` eSwitch rules a NIC (a round number),
    ``max_vfs`` virtual functions a port can have, ``port_speed`` Mbit/s, ``part_number`` and ``product`` what the
    board's vital product data says, ``link_generation`` and ``link_width`` its PCI Express link.
    ``minimum_inline`` is the DEVLINK_ESWITCH_INLINE_MODE_* that its send queues need (0: none, and it cannot be set).
    """

    name: str
    device_id: int
    vf_device_id: int
    subsystem_id: int
    firmware: str
    board_id: str
    max_rules: int
    part_number: str
    product: str
    port_speed: int
    max_vfs: int = 127
    link_generation: int = 3
    link_width: int = 16
    minimum_inline: int = 0
    tunnels: frozenset[str] = frozenset({"vxlan", "geneve", "gre"})
    """Tunnels that are put on and taken off, of :data:`asap2.nic.tunnels.PROTOCOLS` [reformat, decap, and for each one
    of its own: vxlan_encap_decap]."""
    header_rewrites: int = 16
    """Header fields that one rule can rewrite [max_modify_header_actions]: an IPv6 address is four, a MAC two."""
    vlan_depth: int = MAX_VLANS
    """VLAN tags that one rule can push or pop [push_vlan, push_vlan_2, …]. With 0 the driver lets the VF's port do it,
    as with VST: one VLAN, 802.1Q without priority, between a VF and the wire."""
    split_mirror: bool = True
    """A rule can send a packet, change it, and send it again [fdb_multi_path_to_table]."""
    chains: bool = True
    """There are chains behind chain 0 [ignore_flow_level]."""
    connection_tracking: bool = True
    """Rules can look connections up, and match on what is known of them [fdb_modify_header_fwd_to_table and
    esw_uplink_ingress_acl, besides ignore_flow_level]."""
    meters: bool = False
    """Rules can measure a flow's rate, and a packet's length [flow_meter_aso]."""
    sampling: bool = True
    """Rules can sample packets [flow samplers, termination_table, and ignore_flow_level]."""
    merged_eswitch: bool = True
    """A VF's rule can send to a VF of the NIC's other port [merged_eswitch]."""
    match_ttl: bool = True
    match_cvlan: bool = True
    """The inner of two tags can be matched [outer_second_vid]."""
    match_icmp: bool = True
    """ICMP's type and code can be matched [flex_parser_protocols]."""
    hairpin: bool = False
    """What comes from the wire can go back to it [termination_table_raw_traffic]."""
    internal_ports: bool = True
    """Rules can be for, and send to, internal ports of Open vSwitch [reg_c_preserve]."""
    vf_tunnels: bool = False
    """What goes into a tunnel whose underlay is a VF is as if the VF had sent it."""
    dynamic_msix: bool = True
    """Virtual functions can be given more or fewer MSI-X vectors [num_total_dynamic_vf_msix]."""
    vst_stacks_tags: bool = True
    """In legacy mode a VF's VLAN goes before a tag that is there already; else such packets are dropped
    [vport_cvlan_insert_always, or push_vlan in the ingress access list]."""


MODELS = {
    m.name: m
    for m in (
        Model(
            name="ConnectX-4 Lx",
            device_id=0x1015,
            vf_device_id=0x1016,
            subsystem_id=0x0003,
            firmware="14.32.1010",
            board_id="MT_2420110034",
            max_rules=65536,
            part_number="MCX4121A-ACAT",
            product="CX4121A - ConnectX-4 LX SFP28",
            port_speed=25_000,
            link_width=8,
            minimum_inline=1,
            tunnels=frozenset(),
            header_rewrites=0,
            vlan_depth=0,
            split_mirror=False,
            chains=False,
            connection_tracking=False,
            sampling=False,
            merged_eswitch=False,
            match_ttl=False,
            match_cvlan=False,
            match_icmp=False,
            internal_ports=False,
            dynamic_msix=False,
            vst_stacks_tags=False,
        ),
        Model(
            name="ConnectX-5",
            device_id=0x1017,
            vf_device_id=0x1018,
            subsystem_id=0x0007,
            firmware="16.35.4030",
            board_id="MT_0000000012",
            max_rules=262144,
            part_number="MCX516A-CCAT",
            product="CX516A - ConnectX-5 QSFP28",
            port_speed=100_000,
        ),
        Model(
            name="ConnectX-6 Dx",
            device_id=0x101D,
            vf_device_id=0x101E,
            subsystem_id=0x0016,
            firmware="22.36.1010",
            board_id="MT_0000000359",
            max_rules=1048576,
            part_number="MCX623106AN-CDAT",
            product="ConnectX-6 Dx EN adapter card",
            port_speed=100_000,
            link_generation=4,
            header_rewrites=32,
            meters=True,
            hairpin=True,
            vf_tunnels=True,
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
