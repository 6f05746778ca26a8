# SPDX-License-Identifier: Apache-2.0
"""TC's action mpls: options to steps (net/sched/act_mpls.c, tcf_mpls_init() and tcf_mpls_dump())."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any, Final

from asap2.netlink.codec import Attrs
from asap2.netlink.tables import actions as ta
from asap2.netlink.wire import NetlinkError
from asap2.nic.ethertypes import ETH_P_802_3_MIN, ETH_P_MPLS
from asap2.nic.faces.tc.steps import AtRandom, Beyond, PushLabel, Step
from asap2.nic.layer_actions import PopMpls, PushMpls
from asap2.nic.rules import Masked, Match, SetField

_LABEL, _TC, _BOTTOM, _TTL = (12, 20), (9, 3), (8, 1), (0, 8)
"""Where the parts of a label stack entry are: shift and bits."""
_PARTS: Final = {"label": _LABEL, "tc": _TC, "ttl": _TTL, "bos": _BOTTOM}
_IMPLICIT_NULL: Final = 3
_DEFAULT_TTL: Final = 255


def _refuse(text: str, number: int = errno.EINVAL) -> NetlinkError:
    return NetlinkError(number, f"act_mpls: {text}")


def _bits(name: str, value: int) -> Masked:
    shift, width = _PARTS[name]
    return Masked(value << shift, (1 << width) - 1 << shift)


def _check_values(options: Attrs) -> None:
    """What the attributes' policy refuses."""
    label = options.get("label", 0)
    if label >> _LABEL[1] or label == _IMPLICIT_NULL:
        raise _refuse("MPLS label out of range")
    if options.get("tc", 0) >> _TC[1] or options.get("bos", 0) > 1 or options.get("ttl") == 0:
        raise NetlinkError(errno.ERANGE, "integer out of range")


def parse(options: Attrs) -> tuple[list[Step], list[tuple[str, Any]]]:
    """The steps of an action, and the options that are given back; EINVAL, ERANGE, EPROTONOSUPPORT."""
    _check_values(options)
    what, proto = options["parms"].m_action, options.get("proto")
    values = {name: options[name] for name in _PARTS if name in options}
    steps: list[Step]
    match what:
        case ta.TCA_MPLS_ACT_POP:
            if proto is None:
                raise _refuse("Protocol must be set for MPLS pop")
            if proto < ETH_P_802_3_MIN:
                raise _refuse("Invalid protocol type for MPLS pop")
            if values:
                raise _refuse("Label, TTL, TC or BOS cannot be used with MPLS pop")
            steps = [PopMpls(proto)]
        case ta.TCA_MPLS_ACT_DEC_TTL:
            if proto is not None or values:
                raise _refuse("Label, TTL, TC, BOS or protocol cannot be used with MPLS dec_ttl")
            text = 'act_mpls: Offload not supported when "dec_ttl" option is used'
            steps = [Beyond(text, "TC action mpls dec_ttl is not supported")]
        case ta.TCA_MPLS_ACT_PUSH | ta.TCA_MPLS_ACT_MAC_PUSH:
            if "label" not in values:
                raise _refuse("Label is required for MPLS push")
            if proto is not None and proto not in ETH_P_MPLS:
                raise _refuse("Protocol must be an MPLS type for MPLS push", errno.EPROTONOSUPPORT)
            values.setdefault("ttl", _DEFAULT_TTL)
            steps = _push(values, proto or ETH_P_MPLS[0], outside=what == ta.TCA_MPLS_ACT_MAC_PUSH)
        case ta.TCA_MPLS_ACT_MODIFY:
            if proto is not None:
                raise _refuse("Protocol cannot be used with MPLS modify")
            steps = [Beyond("mlx5_core: Not implemented offload action")]
            steps += [SetField("mpls_lse1", _bits(name, value)) for name, value in values.items()]
        case _:
            raise _refuse("Unknown MPLS action")
    back: list[tuple[str, Any]] = [("parms", options["parms"])]
    back += [(name, values[name]) for name in _PARTS if name in values]
    return steps, [*back, ("proto", proto or ETH_P_MPLS[0])]


def _push(values: dict[str, int], ethertype: int, *, outside: bool) -> list[Step]:
    entry = sum(_bits(name, value).value for name, value in values.items())
    if not outside:
        return [PushMpls(entry, ethertype) if "bos" in values else PushLabel(entry, ethertype)]
    if "bos" not in values:
        entry |= _bits("bos", 1).value
    text = 'act_mpls: Offload not supported when "mac_push" option is used'
    return [Beyond(text), PushMpls(entry, ethertype, outside=True)]


def settled(steps: tuple[Step, ...], match: Match) -> tuple[Step, ...]:
    """*steps* of a filter with this *match*, in which each label is the last of its stack or is not."""
    return _settled(steps, labelled=match.eth_type.mask == 0xFFFF and match.eth_type.value in ETH_P_MPLS)


def _settled(steps: tuple[Step, ...], *, labelled: bool) -> tuple[Step, ...]:
    done: list[Step] = []
    for step in steps:
        if isinstance(step, PushLabel):
            step = PushMpls(step.lse | (0 if labelled else _bits("bos", 1).value), step.ethertype)
        if isinstance(step, AtRandom):
            step = replace(step, instead=_settled(step.instead, labelled=labelled))
        if isinstance(step, PushMpls):
            labelled = not step.outside
        elif isinstance(step, PopMpls):
            labelled = step.ethertype in ETH_P_MPLS
        done.append(step)
    return tuple(done)
