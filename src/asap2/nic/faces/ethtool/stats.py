# SPDX-License-Identifier: Apache-2.0
"""The statistics of ``ethtool -S``: mlx5e's names in its order, and what there is to count for each.

A PF or VF has the driver's groups sw, qcnt, vnic_env, vport, the port's (``_phy``), pcie, per priority, and one of each
channel; a PF in switchdev mode has no channels' (mlx5e_ul_rep_stats_grps). A representor has what it has seen itself
and, as ``vport_``, what the eSwitch has carried for its function, seen from the switch.

Sources: drivers/net/ethernet/mellanox/mlx5/core/{en_stats,en_rep}.c of Linux 6.12, for a ConnectX-5 without TLS and
IPsec. Counters of things that are not here (descriptors, PCI Express, signal errors) are 0. A packet that is still to
be segmented counts once; packets are not told apart by the kind of their address but where legacy mode's rules do.
"""

from __future__ import annotations

from asap2.nic.function import Role, Vf
from asap2.nic.netdevs import Counters, NetDev, NetDevs, Where
from asap2.nic.statistics import with_fcs

ETH_GSTRING_LEN = 32
PRIORITIES = 8


def _words(text: str) -> list[str]:
    return text.split()


_SW = _words("""
rx_packets rx_bytes tx_packets tx_bytes tx_tso_packets tx_tso_bytes tx_tso_inner_packets tx_tso_inner_bytes
tx_added_vlan_packets tx_nop tx_mpwqe_blks tx_mpwqe_pkts rx_lro_packets rx_lro_bytes rx_gro_packets rx_gro_bytes
rx_gro_skbs rx_gro_large_hds rx_hds_nodata_packets rx_hds_nodata_bytes rx_hds_nosplit_packets rx_hds_nosplit_bytes
rx_ecn_mark rx_removed_vlan_packets rx_csum_unnecessary rx_csum_none rx_csum_complete rx_csum_complete_tail
rx_csum_complete_tail_slow rx_csum_unnecessary_inner rx_xdp_drop rx_xdp_redirect rx_xdp_tx_xmit rx_xdp_tx_mpwqe
rx_xdp_tx_inlnw rx_xdp_tx_nops rx_xdp_tx_full rx_xdp_tx_err rx_xdp_tx_cqe tx_csum_none tx_csum_partial
tx_csum_partial_inner tx_queue_stopped tx_queue_dropped tx_xmit_more tx_recover tx_cqes tx_queue_wake tx_cqe_err
tx_xdp_xmit tx_xdp_mpwqe tx_xdp_inlnw tx_xdp_nops tx_xdp_full tx_xdp_err tx_xdp_cqes rx_wqe_err rx_mpwqe_filler_cqes
rx_mpwqe_filler_strides rx_oversize_pkts_sw_drop rx_buff_alloc_err rx_cqe_compress_blks rx_cqe_compress_pkts
rx_congst_umr rx_arfs_add rx_arfs_request_in rx_arfs_request_out rx_arfs_expired rx_arfs_err rx_recover
rx_pp_alloc_fast rx_pp_alloc_slow rx_pp_alloc_slow_high_order rx_pp_alloc_empty rx_pp_alloc_refill rx_pp_alloc_waive
rx_pp_recycle_cached rx_pp_recycle_cache_full rx_pp_recycle_ring rx_pp_recycle_ring_full rx_pp_recycle_released_ref
ch_events ch_poll ch_arm ch_aff_change ch_force_irq ch_eq_rearm rx_xsk_packets rx_xsk_bytes rx_xsk_csum_complete
rx_xsk_csum_unnecessary rx_xsk_csum_unnecessary_inner rx_xsk_csum_none rx_xsk_ecn_mark rx_xsk_removed_vlan_packets
rx_xsk_xdp_drop rx_xsk_xdp_redirect rx_xsk_wqe_err rx_xsk_mpwqe_filler_cqes rx_xsk_mpwqe_filler_strides
rx_xsk_oversize_pkts_sw_drop rx_xsk_buff_alloc_err rx_xsk_cqe_compress_blks rx_xsk_cqe_compress_pkts rx_xsk_congst_umr
tx_xsk_xmit tx_xsk_mpwqe tx_xsk_inlnw tx_xsk_full tx_xsk_err tx_xsk_cqes
""")
_QUEUES_AND_ENVIRONMENT = _words("""
rx_out_of_buffer rx_if_down_packets rx_steer_missed_packets
""")
_VPORT = [
    f"{way}_vport_{kind}_{unit}"
    for kind in ("unicast", "multicast", "broadcast", "rdma_unicast", "rdma_multicast")
    for way in ("rx", "tx")
    for unit in ("packets", "bytes")
]
_LOOPBACK = ["vport_loopback_packets", "vport_loopback_bytes"]
_PHY = _words("""
tx_packets_phy rx_packets_phy rx_crc_errors_phy tx_bytes_phy rx_bytes_phy tx_multicast_phy tx_broadcast_phy
rx_multicast_phy rx_broadcast_phy rx_in_range_len_errors_phy rx_out_of_range_len_phy rx_oversize_pkts_phy
rx_symbol_err_phy tx_mac_control_phy rx_mac_control_phy rx_unsupported_op_phy rx_pause_ctrl_phy tx_pause_ctrl_phy
rx_discards_phy tx_discards_phy tx_errors_phy rx_undersize_pkts_phy rx_fragments_phy rx_jabbers_phy rx_64_bytes_phy
rx_65_to_127_bytes_phy rx_128_to_255_bytes_phy rx_256_to_511_bytes_phy rx_512_to_1023_bytes_phy
rx_1024_to_1518_bytes_phy rx_1519_to_2047_bytes_phy rx_2048_to_4095_bytes_phy rx_4096_to_8191_bytes_phy
rx_8192_to_10239_bytes_phy link_down_events_phy rx_pcs_symbol_err_phy rx_corrected_bits_phy rx_err_lane_0_phy
rx_err_lane_1_phy rx_err_lane_2_phy rx_err_lane_3_phy rx_buffer_passed_thres_phy
""")
_PCIE = _words("""
rx_pci_signal_integrity tx_pci_signal_integrity outbound_pci_stalled_rd outbound_pci_stalled_wr
outbound_pci_stalled_rd_events outbound_pci_stalled_wr_events
""")
_PER_PRIORITY = [
    f"{name.replace('#', f'prio{prio}')}"
    for prio in range(PRIORITIES)
    for name in ("rx_#_bytes", "rx_#_packets", "rx_#_discards", "tx_#_bytes", "tx_#_packets")
]
_PAUSE = _words("""
rx_global_pause rx_global_pause_duration tx_global_pause tx_global_pause_duration rx_global_pause_transition
tx_pause_storm_warning_events tx_pause_storm_error_events
""")
_MODULE = _words("""
module_unplug module_bus_stuck module_high_temp module_bad_shorted
""")
_CONGESTION = [
    f"rx_prio{prio}_{name}" for prio in range(PRIORITIES) for name in ("buf_discard", "cong_discard", "marked")
]
_CHANNEL = _words("""
events poll arm aff_change force_irq eq_rearm
""")
_RX_QUEUE = _words("""
packets bytes csum_complete csum_complete_tail csum_complete_tail_slow csum_unnecessary csum_unnecessary_inner
csum_none xdp_drop xdp_redirect lro_packets lro_bytes gro_packets gro_bytes gro_skbs gro_large_hds hds_nodata_packets
hds_nodata_bytes hds_nosplit_packets hds_nosplit_bytes ecn_mark removed_vlan_packets wqe_err mpwqe_filler_cqes
mpwqe_filler_strides oversize_pkts_sw_drop buff_alloc_err cqe_compress_blks cqe_compress_pkts congst_umr arfs_add
arfs_request_in arfs_request_out arfs_expired arfs_err recover pp_alloc_fast pp_alloc_slow pp_alloc_slow_high_order
pp_alloc_empty pp_alloc_refill pp_alloc_waive pp_recycle_cached pp_recycle_cache_full pp_recycle_ring
pp_recycle_ring_full pp_recycle_released_ref
""")
_RX_XDP_QUEUE = _words("""
xmit mpwqe inlnw nops full err cqes
""")
_TX_QUEUE = _words("""
packets bytes tso_packets tso_bytes tso_inner_packets tso_inner_bytes csum_partial csum_partial_inner
added_vlan_packets nop mpwqe_blks mpwqe_pkts csum_none stopped dropped xmit_more recover cqes wake cqe_err
""")
_REPRESENTOR = [
    *["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"],
    *["vport_rx_packets", "vport_rx_bytes", "vport_tx_packets", "vport_tx_bytes"],
    *[name for name in _VPORT if "rdma" in name],
    *_LOOPBACK,
]


def names(device: NetDev, channels: int) -> list[str]:
    """What is counted of *device*, in mlx5e's order; nothing of a device that is no NIC's."""
    if device.pf is None:
        return []
    if device.role is Role.REPRESENTOR:
        return _REPRESENTOR
    counted = [*_SW, *_QUEUES_AND_ENVIRONMENT, *_VPORT, *_LOOPBACK, *_PHY, *_PCIE, *_PER_PRIORITY, *_PAUSE, *_MODULE]
    counted += [f"ch{i}_{name}" for i in range(channels) for name in _CHANNEL]
    for i in range(channels):
        counted += [f"rx{i}_{name}" for name in _RX_QUEUE]
        counted += [f"rx{i}_xdp_tx_{name}" for name in _RX_XDP_QUEUE]
    counted += [f"tx{i}_{name}" for i in range(channels) for name in _TX_QUEUE]
    counted += [f"tx{i}_xdp_{name}" for i in range(channels) for name in _RX_XDP_QUEUE]
    return counted + _CONGESTION


def figures(device: NetDev, channels: int, netdevs: NetDevs) -> list[int]:
    """The counters of :func:`names`. What is not known to be multicast or broadcast counts as unicast. All that the
    netdev itself passes goes by channel 0."""
    own, function = netdevs.counted(device, Where.NETDEV), netdevs.counted(device, Where.FUNCTION)
    known = _plain("", own)
    if device.role is Role.REPRESENTOR:
        known |= {
            "vport_rx_packets": function.tx_packets,
            "vport_rx_bytes": function.tx_bytes,
            "vport_tx_packets": function.rx_packets,
            "vport_tx_bytes": function.rx_bytes,
        }
        return [known.get(name, 0) for name in names(device, channels)]
    wire = with_fcs(netdevs.counted(device, Where.WIRE))
    kinds = netdevs.vf_counters(device.function) if isinstance(device.function, Vf) else {}
    several = {kind: kinds.get(kind, 0) for kind in ("multicast", "broadcast")}
    known |= {f"rx_vport_{kind}_packets": count for kind, count in several.items()}
    known |= {
        "rx_vport_unicast_packets": max(function.rx_packets - sum(several.values()), 0),
        "rx_vport_unicast_bytes": function.rx_bytes,
        "tx_vport_unicast_packets": function.tx_packets,
        "tx_vport_unicast_bytes": function.tx_bytes,
    }
    for way, packets, octets in (("rx", wire.rx_packets, wire.rx_bytes), ("tx", wire.tx_packets, wire.tx_bytes)):
        known |= {f"{way}_packets_phy": packets, f"{way}_bytes_phy": octets}
        known |= {f"{way}_prio0_packets": packets, f"{way}_prio0_bytes": octets}
    known |= _plain("0", own)
    return [known.get(name, 0) for name in names(device, channels)]


def _plain(queue: str, own: Counters) -> dict[str, int]:
    return {
        f"rx{queue}_packets": own.rx_packets,
        f"rx{queue}_bytes": own.rx_bytes,
        f"tx{queue}_packets": own.tx_packets,
        f"tx{queue}_bytes": own.tx_bytes,
    }
