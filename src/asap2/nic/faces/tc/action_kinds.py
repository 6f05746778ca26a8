# SPDX-License-Identifier: Apache-2.0
"""Each kind of TC action: options to steps, and to what the kernel gives back.

Sources, Linux 6.1: net/sched/act_{gact,mirred,vlan,skbedit,tunnel_key,pedit,csum,sample}.c, tcf_*_init() for
errors, tcf_*_offload_act_setup() for what is not offered to drivers at all, and tcf_*_dump() for what comes back.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final

from asap2.netlink.codec import Attrs
from asap2.netlink.tables import actions as ta
from asap2.netlink.wire import NetlinkError
from asap2.nic.ethertypes import ETH_P_8021Q, VLAN_TYPES
from asap2.nic.faces.tc import ct_action, mpls_action, police, software_kinds, tunnel_options
from asap2.nic.faces.tc import pedit as tc_pedit
from asap2.nic.faces.tc.steps import NO_MARK, AtRandom, Beyond, Csum, Mirred, PacketType, Step
from asap2.nic.layer_actions import PopEthernet, PushEthernet
from asap2.nic.rules import Decap, Masked, ModifyVlan, PopVlan, Psample, PushVlan, SetField, SetTunnel

PACKET_HOST: Final = 0
_INHERIT_DSFIELD: Final = 0x20
_HIGHEST_PACKET_TYPE: Final = 3
"""PACKET_OTHERHOST."""
_ALL: Final = 0xFFFF_FFFF
_HIGHEST_VERDICT: Final = ta.TC_ACT_TRAP
_MIRRED: Final = (ta.TCA_EGRESS_REDIR, ta.TCA_EGRESS_MIRROR, ta.TCA_INGRESS_REDIR, ta.TCA_INGRESS_MIRROR)

Options = tuple[tuple[str, Any], ...]
Result = tuple[list[Step], int, Options]
"""Steps, verdict, and the options that are given back, ``parms`` as it was given."""

FLAGGED: Final = ("ct", "ctinfo", "mpls")
"""Kinds whose options must have NLA_F_NESTED (nla_parse_nested(); the others use nla_parse_nested_deprecated())."""
NO_OPTIONS: Final = {
    "mirred": "act_mirred: Mirred requires attributes to be passed",
    "tunnel_key": "act_tunnel_key: Tunnel requires attributes to be passed",
    "pedit": "act_pedit: Pedit requires attributes to be passed",
    "ct": "act_ct: Ct requires attributes to be passed",
    "mpls": "act_mpls: Missing netlink attributes",
    "ctinfo": "act_ctinfo: ctinfo requires attributes to be passed",
    "ife": "act_ife: IFE requires attributes to be passed",
}
NO_PARMS: Final = {
    "mirred": "act_mirred: Missing required mirred parameters",
    "tunnel_key": "act_tunnel_key: Missing tunnel key parameters",
    "pedit": "act_pedit: Missing required attributes",
    "ct": "act_ct: Missing required ct parameters",
    "mpls": "act_mpls: No MPLS params",
    "ctinfo": "act_ctinfo: Missing required TCA_CTINFO_ACT attribute",
}
"""What is said of an action without options, and of one without its parameters, beside EINVAL."""


PARMS: Final = ("parms", "parms_ex", "tbf")
"""What that structure is called; most begin with tc_gen."""


def parms_of(options: Any) -> Any:
    """The structure in an action's options that has its index and verdict; None where there is none."""
    if not isinstance(options, Attrs):
        return None
    return next((options[name] for name in PARMS if name in options), None)


def _check_verdict(verdict: int) -> None:
    """tcf_action_check_ctrlact(); EINVAL."""
    kind = verdict >> 28 & 0xF
    if verdict != ta.TC_ACT_UNSPEC and (kind > 2 if kind else verdict > _HIGHEST_VERDICT):
        raise NetlinkError(errno.EINVAL, "invalid control action")


_GACT_NOT_OFFERED: Final = {
    ta.TC_ACT_UNSPEC: 'act_gact: Offload of "continue" action is not supported',
    ta.TC_ACT_RECLASSIFY: 'act_gact: Offload of "reclassify" action is not supported',
    ta.TC_ACT_PIPE: 'act_gact: Offload of "pipe" action is not supported',
}
_COUNTED: Final = 2
"""PGACT_DETERM, the last of the ways to choose packets."""
_GACT_OFFERED: Final = (ta.TC_ACT_OK, ta.TC_ACT_SHOT, ta.TC_ACT_TRAP)


def _gact(options: Attrs) -> Result:
    verdict = options["parms"].action
    if "prob" in options:
        chance = options["prob"]
        if chance.ptype > _COUNTED:
            raise NetlinkError(errno.EINVAL)
        if ta.has_opcode(chance.paction, ta.TC_ACT_GOTO_CHAIN):
            raise NetlinkError(errno.EINVAL, "goto chain not allowed on fallback")
    _check_verdict(verdict)
    steps: list[Step] = []
    back: list[tuple[str, Any]] = [("parms", options["parms"])]
    if verdict in _GACT_NOT_OFFERED:
        steps.append(Beyond(_GACT_NOT_OFFERED[verdict]))
    elif verdict not in _GACT_OFFERED and not ta.has_opcode(verdict, ta.TC_ACT_GOTO_CHAIN):
        steps.append(Beyond("act_gact: Unsupported generic action offload"))
    if "prob" in options and options["prob"].ptype:
        chance = chance._replace(pval=max(1, chance.pval))
        back.append(("prob", chance))
        counted = chance.ptype == _COUNTED
        steps.append(AtRandom(None if counted else (1 << 32) // chance.pval - 1, chance.paction))
    return steps, verdict, tuple(back)


def _mirred(options: Attrs) -> Result:
    parms = options["parms"]
    if parms.eaction not in _MIRRED:
        raise NetlinkError(errno.EINVAL, "act_mirred: Unknown mirred option")
    if not parms.ifindex:
        raise NetlinkError(errno.EINVAL, "act_mirred: Specified device does not exist")
    _check_verdict(parms.action)
    final = parms.eaction in (ta.TCA_EGRESS_REDIR, ta.TCA_INGRESS_REDIR)
    ingress = parms.eaction in (ta.TCA_INGRESS_REDIR, ta.TCA_INGRESS_MIRROR)
    return [Mirred(parms.ifindex, ingress, final)], parms.action, (("parms", parms),)


def _skbedit(options: Attrs) -> Result:
    parms = options["parms"]
    given = [name for name in ("ptype", "mark", "priority", "queue_mapping") if name in options]
    inherit = options.get("flags", 0) & _INHERIT_DSFIELD
    if options.get("ptype", 0) > _HIGHEST_PACKET_TYPE:
        raise NetlinkError(errno.EINVAL)
    if not given and not inherit and "mask" not in options:
        raise NetlinkError(errno.EINVAL)
    _check_verdict(parms.action)
    order = ("priority", "queue_mapping", "mark", "ptype", "mask", "flags")
    back: Options = (("parms", parms), *((name, options[name]) for name in order if name in options))
    steps: list[Step] = []
    if given != ["ptype"] or inherit or "mask" in options:
        steps.append(_skbedit_not_offered(given, inherit, "mask" in options))
    if options.get("ptype", PACKET_HOST) != PACKET_HOST:
        steps.append(Beyond(_PTYPE, 'TC action skbedit ptype is supported with type "host" only'))
    if inherit:
        steps.append(Beyond(None, "TC action skbedit with inheritdsfield is not supported"))
    if "priority" in options:
        steps.append(SetField("skb_priority", Masked(options["priority"], _ALL)))
    mask = options.get("mask", _ALL)
    if "mark" in options and mask:
        steps.append(SetField("skb_mark", Masked(options["mark"] & mask, mask)))
    if "ptype" in options:
        steps.append(PacketType(options["ptype"]))
    return steps, parms.action, back


def _skbedit_not_offered(given: list[str], inherit: int, masked: bool) -> Beyond:
    """Why no eSwitch takes such an action (tcf_skbedit_offload_act_setup)."""
    if given in (["mark"], ["priority"]) and not inherit and not masked:
        return NO_MARK if given == ["mark"] else Beyond(NO_MARK.hardware)
    for used, name in (("queue_mapping" in given, "queue_mapping"), (inherit, "inheritdsfield")):
        if used:
            return Beyond(f'act_skbedit: Offload not supported when "{name}" option is used')
    return Beyond("act_skbedit: Unsupported skbedit option offload")


_PTYPE: Final = "mlx5_core: skbedit ptype is only supported with type host"


def _police(options: Attrs) -> Result:
    _check_verdict(options["tbf"].action)
    steps, verdict, back = police.parse(options)
    return steps, verdict, tuple(back)


def _csum(options: Attrs) -> Result:
    parms = options["parms"]
    _check_verdict(parms.action)
    return [Csum(parms.update_flags)], parms.action, (("parms", parms),)


def _tunnel_key(options: Attrs) -> Result:
    parms = options["parms"]
    if parms.t_action == ta.TCA_TUNNEL_KEY_ACT_RELEASE:
        return [Decap()], parms.action, (("parms", parms),)
    if parms.t_action != ta.TCA_TUNNEL_KEY_ACT_SET:
        raise NetlinkError(errno.EINVAL, "act_tunnel_key: Unknown tunnel key action")
    version = "ipv4" if "enc_ipv4_dst" in options else "ipv6"
    source, destination = options.get(f"enc_{version}_src"), options.get(f"enc_{version}_dst")
    if source is None or destination is None:
        raise NetlinkError(errno.EINVAL, "act_tunnel_key: Missing either ipv4 or ipv6 src and dst")
    key_id, keyed = options.get("enc_key_id", 0), "enc_key_id" in options
    in_tunnel, shown = tunnel_options.to_set(options["enc_opts"]) if "enc_opts" in options else (b"", [])
    tos, ttl, port = options.get("enc_tos", 0), options.get("enc_ttl", 0), options.get("enc_dst_port", 0)
    no_csum, no_frag = bool(options.get("no_csum")), bool(options.get("no_frag"))
    step = SetTunnel(key_id, source, destination, tos, ttl, port, not no_csum, no_frag, in_tunnel, keyed)
    back: list[tuple[str, Any]] = [
        ("parms", parms),
        *([("enc_key_id", key_id)] if keyed else []),
        (f"enc_{version}_src", source),
        (f"enc_{version}_dst", destination),
    ]
    back += [("enc_dst_port", port)] if port else []
    back.append(("no_csum", int(no_csum)))
    back += [("no_frag", True)] if no_frag else []
    back += shown
    back += [("enc_tos", tos)] if tos else []
    back += [("enc_ttl", ttl)] if ttl else []
    return [step], parms.action, tuple(back)


def _pedit(options: Attrs) -> Result:
    parms, extended = options.get("parms_ex"), options.get("keys_ex")
    if parms is None or extended is None:
        text = "pedit without extended keys is not supported"
        beyond = Beyond("act_pedit: Unsupported pedit command offload", text)
        parms = parms_of(options)
        return [beyond], parms.action, (("parms", parms),)
    kinds = [(key.get("htype", 0), key.get("cmd", 0)) for key in extended.get("key_ex", [])]
    if not parms.keys or parms.nkeys != len(parms.keys) or len(kinds) != len(parms.keys):
        raise NetlinkError(errno.EINVAL, "act_pedit: Pedit requires keys to be passed")
    _check_verdict(parms.action)
    back = {"key_ex": [{"htype": header, "cmd": command} for header, command in kinds]}
    return list(tc_pedit.parse(parms.keys, kinds)), parms.action, (("keys_ex", back), ("parms_ex", parms))


def _vlan(options: Attrs) -> Result:
    parms = options["parms"]
    if parms.v_action == ta.TCA_VLAN_ACT_POP:
        return [PopVlan()], parms.action, (("parms", parms),)
    if parms.v_action == ta.TCA_VLAN_ACT_POP_ETH:
        _check_verdict(parms.action)
        return [PopEthernet()], parms.action, (("parms", parms),)
    if parms.v_action == ta.TCA_VLAN_ACT_PUSH_ETH:
        dst, src = options.get("push_eth_dst"), options.get("push_eth_src")
        if dst is None or src is None:
            raise NetlinkError(errno.EINVAL)
        _check_verdict(parms.action)
        return [PushEthernet(dst, src)], parms.action, (("parms", parms), ("push_eth_dst", dst), ("push_eth_src", src))
    if parms.v_action not in (ta.TCA_VLAN_ACT_PUSH, ta.TCA_VLAN_ACT_MODIFY):
        raise NetlinkError(errno.EINVAL)
    vid = options.get("push_vlan_id")
    if vid is None:
        raise NetlinkError(errno.EINVAL)
    if vid >= 0xFFF:
        raise NetlinkError(errno.ERANGE)
    protocol = options.get("push_vlan_protocol", ETH_P_8021Q)
    if protocol not in VLAN_TYPES:
        raise NetlinkError(errno.EPROTONOSUPPORT)
    _check_verdict(parms.action)
    priority = options.get("push_vlan_priority", 0) & 7
    push = parms.v_action == ta.TCA_VLAN_ACT_PUSH
    kept_priority = None if "push_vlan_priority" not in options else priority
    back: list[tuple[str, Any]] = [("parms", parms), ("push_vlan_id", vid), ("push_vlan_protocol", protocol)]
    if push or kept_priority is not None:
        back.append(("push_vlan_priority", priority))
    step = PushVlan(vid, priority, protocol) if push else ModifyVlan(vid, kept_priority, protocol)
    return [step], parms.action, tuple(back)


def _ct(options: Attrs) -> Result:
    parms = options["parms"]
    _check_verdict(parms.action)
    steps, back = ct_action.parse(options)
    return steps, parms.action, tuple(back)


def _mpls(options: Attrs) -> Result:
    parms = options["parms"]
    steps, back = mpls_action.parse(options)
    _check_verdict(parms.action)
    return steps, parms.action, tuple(back)


def _sample(options: Attrs) -> Result:
    parms = options["parms"]
    rate, group, length = options.get("rate"), options.get("psample_group"), options.get("trunc_size")
    if rate is None or group is None:
        raise NetlinkError(errno.EINVAL)
    _check_verdict(parms.action)
    if not rate:
        raise NetlinkError(errno.EINVAL, "invalid sample rate")
    back: list[tuple[str, Any]] = [("parms", parms), ("tm", None), ("rate", rate)]
    back += [("trunc_size", length)] if length is not None else []
    back.append(("psample_group", group))
    return [Psample(group, rate, rate, length, counted=True)], parms.action, tuple(back)


def _checked(parser: Callable[[Attrs], Result]) -> Callable[[Attrs], Result]:
    """*parser*, with the verdict checked last."""

    def parse(options: Attrs) -> Result:
        steps, verdict, back = parser(options)
        _check_verdict(verdict)
        return steps, verdict, back

    return parse


PARSERS: Final[dict[str, Callable[[Attrs], Result]]] = {
    "gact": _gact,
    "mirred": _mirred,
    "vlan": _vlan,
    "tunnel_key": _tunnel_key,
    "pedit": _pedit,
    "csum": _csum,
    "skbedit": _skbedit,
    "police": _police,
    "ct": _ct,
    "sample": _sample,
    "mpls": _mpls,
    **{kind: _checked(parser) for kind, parser in software_kinds.KINDS.items()},
}
