# SPDX-License-Identifier: Apache-2.0
"""What a NIC's driver accepts in a TC filter, and its refusals: by model, inline mode and place.

The order of the checks and the texts are those of mlx5 in Linux 6.1 (drivers/net/ethernet/mellanox/mlx5/core: en_tc.c,
__parse_cls_flower() and parse_tc_fdb_actions(); en/tc/act/*.c; eswitch_offloads.c, esw_add_vlan_action_check()). For
connection tracking they are those of Linux 6.12 (en/tc_ct.c, en/tc/act/ct.c), because drivers before 6.4 refuse more.
Where mlx5 gives an error without a text, so does this.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from socket import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP

from asap2.netlink.tables import actions as ta
from asap2.netlink.wire import NetlinkError
from asap2.nic.ethertypes import ARP_TYPES
from asap2.nic.faces.tc.steps import Beyond, Continue, GoOn, Mirred, Police, Step
from asap2.nic.fields import FIELDS, TRACKED, Depth
from asap2.nic.model import Model
from asap2.nic.rules import (
    CtState,
    Drop,
    Frag,
    Masked,
    Match,
    Pass,
    PushVlan,
)
from asap2.nic.silicon.abi import MPLS_LABELS

_UNKNOWN = frozenset(field.name for field in FIELDS if field.depth is None) - TRACKED
"""Keys that mlx5 does not support (FLOW_DISSECTOR_KEY_ARP and others)."""
_UNKNOWN |= {f"mpls_lse{depth}" for depth in range(1, MPLS_LABELS + 1)}
"""mlx5 accepts a key of MPLS, and ignores it but inside a tunnel of bareudp: then other packets would match, too."""
_NETWORK = frozenset(field.name for field in FIELDS if field.depth is Depth.NETWORK)
_TRANSPORT = frozenset(field.name for field in FIELDS if field.depth is Depth.TRANSPORT)
_ECN, _ECT_1 = 3, 1
"""The congestion bits of the type of service, and the value of ECT(1)."""

_METER_VERDICTS = (ta.TC_ACT_PIPE, ta.TC_ACT_OK, ta.TC_ACT_SHOT)

_WHOLE = {"ct_zone": 0xFFFF, "ct_labels": (1 << 128) - 1}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a filter is installed: on a VF's representor or, with ``uplink``, on the PF's netdev, which stands for the
    wire, or on a device above it. ``ifindex`` is that of the representor or PF.

    ``wire`` is the uplink's ifindex. ``pushed`` returns the VLAN that existing rules from the same VF to the wire push
    (0: they push none; None: there are no such rules); it matters where the model's ``vlan_depth`` is 0.
    """

    uplink: bool
    ifindex: int
    chain: int = 0
    prio: int = 1
    wire: int = 0
    pushed: Callable[[], int | None] = lambda: None
    tunnel: bool = False
    """Whether the filter is on a tunnel's device: the rule takes packets out of the tunnel."""
    internal: bool = False
    """Whether the filter is on an internal port of Open vSwitch."""
    internal_ports: frozenset[int] = frozenset()
    """The internal ports that the filter sends to, at ingress or egress."""
    peers: frozenset[int] | None = None
    """For a filter on a function's receive side (parse_tc_nic_actions()): the netdevs of all functions of its hardware.
    None: the filter is for the eSwitch."""
    vf: bool = False
    """Whether that function is a VF; the firmware allows chains only to trusted ones."""


def pushed(wire: int, others: Iterable[tuple[Step, ...]]) -> int | None:
    """The VLAN that an action list whose first output is *wire* pushes (the first such list; 0: none)."""
    for steps in others:
        output = next((step.ifindex for step in steps if isinstance(step, Mirred)), None)
        if output == wire:
            return next((step.vid for step in steps if isinstance(step, PushVlan)), 0)
    return None


def refuse(text: str = "", number: int = errno.EOPNOTSUPP) -> NetlinkError:
    """The driver's refusal, to be raised. NL_SET_ERR_MSG_MOD() prefixes the text with the module's name."""
    return NetlinkError(number, f"mlx5_core: {text}" if text else None)


def elsewhere() -> NetlinkError:
    """The refusal to send to a device of other hardware."""
    return refuse("devices are not on same switch HW, can't offload forwarding")


def check_match(model: Model, match: Match) -> None:
    used = match.used().keys()
    if not _UNKNOWN.isdisjoint(used) or (match.eth_type.value in ARP_TYPES and not _NETWORK.isdisjoint(used)):
        raise refuse("Unsupported key")
    if match.cvlan_tci.value and not model.match_cvlan:
        raise refuse("Matching on CVLAN is not supported")
    if match.ip_frag.mask & Frag.FIRST:
        raise refuse("Match on frag first/later is not supported")
    if match.ip_ttl.mask and not model.match_ttl:
        raise refuse("Matching on TTL is not supported")
    if match.l4_src.mask or match.l4_dst.mask:
        protocol = match.ip_proto.value
        if protocol in (IPPROTO_ICMP, IPPROTO_ICMPV6):
            if not model.match_icmp:
                name = "ICMP" if protocol == IPPROTO_ICMP else "ICMPV6"
                raise refuse(f"Match on Flex protocols for {name} is not supported")
        elif protocol not in (IPPROTO_TCP, IPPROTO_UDP):
            raise refuse("Only UDP and TCP transports are supported for L4 matching", errno.EINVAL)


def check_congestion(match: Match) -> None:
    """Check matches on congestion bits, which decapsulation may change (mlx5e_tc_verify_tunnel_ecn(), RFC 6040)."""
    outer, inner = (Masked(f.value & _ECN, f.mask & _ECN) for f in (match.tun_tos, match.ip_tos))
    if outer.mask not in (0, _ECN):
        raise refuse("Partial match on enc_tos ecn bits isn't supported")
    if not inner.mask:
        return
    if not outer.mask:
        raise refuse("Matching on tos ecn bits without also matching enc_tos ecn bits isn't supported")
    if inner.mask != _ECN:
        raise refuse("Partial match on tos ecn bits with match on enc_tos ecn bits isn't supported")
    if outer.value == _ECT_1:
        raise refuse("Match on enc_tos ecn = ECT(1) isn't supported")
    if outer.value == _ECN and inner.value != _ECN:
        raise refuse("Match on tos enc_tos ecn = CE while match on tos ecn != CE isn't supported")


def depth(match: Match) -> Depth:
    """How much of a packet its descriptor must contain for *match* (match_level)."""
    used = match.used().keys() - TRACKED
    if not _TRANSPORT.isdisjoint(used):
        return Depth.TRANSPORT
    if not _NETWORK.isdisjoint(used) or match.ip_frag.value & Frag.IS_FRAGMENT:
        return Depth.NETWORK
    return Depth.LINK if used else Depth.NONE


def can_track(model: Model, place: Place) -> bool:
    """Whether the driver has connection tracking at *place*. A function's receive side has none, because it needs a
    capability that the firmware gives to few functions."""
    return model.connection_tracking and place.peers is None


def check_tracking(model: Model, place: Place, match: Match) -> None:
    """Check the connection tracking keys of *match* (mlx5_tc_ct_match_add())."""
    if TRACKED.isdisjoint(match.used()):
        return
    if not can_track(model, place):
        raise refuse("offload of ct matching isn't available")
    for state, name in ((CtState.REL, "rel"), (CtState.INV, "inv")):
        if match.ct_state.value & state:
            raise refuse(f"matching on ct_state +{name} isn't supported")


def tracked(match: Match) -> Match:
    """*match* as the NIC applies it. Its registers hold the zone and a number for each set of labels, so all bits of
    both count (MLX5_CT_ZONE_MASK, MLX5_CT_LABELS_MASK)."""
    whole = {name: Masked(match.used()[name].value, mask) for name, mask in _WHOLE.items() if name in match.used()}
    return match.but(**whole) if whole else match


# ---- policing


def check_limit(steps: tuple[Step, ...]) -> Police:
    """The police action of a matchall filter on a representor, which limits all that the function (mlx5: vport) sends.

    Raises:
        NetlinkError: the filter does anything else (tc_matchall_police_validate()).
    """
    found = [step for step in steps if not isinstance(step, Beyond | GoOn | Continue | Pass | Drop)]
    if not steps:
        raise refuse("matchall called with no action", errno.EINVAL)
    if len(found) > 1:
        raise refuse("matchall policing support only a single action")
    if not found or not isinstance(found[0], Police):
        raise refuse("mlx5 supports only police action for matchall")
    police = found[0]
    if police.conform != ta.TC_ACT_UNSPEC:
        raise refuse("Offload not supported when conform action is not continue")
    if police.exceed != ta.TC_ACT_SHOT:
        raise refuse("Offload not supported when exceed action is not drop")
    _check_rates(police)
    return police


def check_meter(step: Police) -> None:
    """Check that hardware supports both verdicts and the rates of an action police (police_act_validate())."""
    if not all(
        verdict in _METER_VERDICTS or ta.has_opcode(verdict, ta.TC_ACT_JUMP) for verdict in (step.exceed, step.conform)
    ):
        raise refuse("Offload not supported when conform-exceed action is not pipe, ok, jump or drop")
    _check_rates(step)


def _check_rates(step: Police) -> None:
    if step.limit.peak or step.limit.overhead:
        raise refuse("Offload not supported when peakrate/avrate/overhead is configured")
