# SPDX-License-Identifier: Apache-2.0
"""The counters that a netdev of a NIC shows as its own: in rtnetlink, sysfs, /proc/net/dev and Open vSwitch's datapath.

A representor's are those of its VF, seen from the switch, and an uplink's in switchdev mode are the port's: what
hardware has forwarded is in them. What the host's CPU has touched is told apart (IFLA_OFFLOAD_XSTATS_CPU_HIT). All
other netdevs show what they have seen themselves.

Sources: drivers/net/ethernet/mellanox/mlx5/core/{en_rep,en_main}.c of Linux 6.12, mlx5e_rep_get_stats(),
mlx5e_get_stats(), mlx5e_has_offload_stats().
"""

from __future__ import annotations

from asap2.nic.function import Role
from asap2.nic.netdevs import Counters, NetDev, NetDevs, Where

FCS_LEN = 4


def shown(netdevs: NetDevs, device: NetDev) -> Counters | None:
    """What *device* shows in place of what the netdev has seen itself; None where that is the same."""
    if device.eswitch is None:  # hardware forwards nothing past it
        return None
    if device.role is Role.REPRESENTOR:
        function = netdevs.counted(device, Where.FUNCTION)
        return Counters(function.tx_packets, function.rx_packets, function.tx_bytes, function.rx_bytes)
    return with_fcs(netdevs.counted(device, Where.WIRE))


def with_fcs(wire: Counters) -> Counters:
    """Counters of the cable as a port's registers have them: with each frame's check sequence."""
    return wire._replace(
        rx_bytes=wire.rx_bytes + FCS_LEN * wire.rx_packets, tx_bytes=wire.tx_bytes + FCS_LEN * wire.tx_packets
    )
