# SPDX-License-Identifier: Apache-2.0
"""The kinds of TC actions that the kernel offers to no driver (they have no ``offload_act_setup``).

Sources, Linux 6.1: net/sched/act_{simple,skbmod,nat,connmark,ctinfo,ife,bpf}.c, tcf_*_init() for errors, tcf_*_dump()
for what comes back. The node's pipeline does simple and skbmod; the others can be made, listed and deleted.
"""

from __future__ import annotations

import errno
import socket
import struct
from ctypes import addressof, create_string_buffer
from typing import Any, Final

from asap2.netlink.codec import Attrs
from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc.steps import Beyond, Step
from asap2.nic.layer_actions import Congest, SetEthertype, SwapEthernet
from asap2.nic.rules import Masked, SetField

Options = tuple[tuple[str, Any], ...]
Result = tuple[list[Step], int, Options]
"""Steps, verdict, and the options that are given back."""

NOT_OFFERED: Final = "Action does not support offload"
_SIMP_MAX_DATA: Final = 31
"""SIMP_MAX_DATA, without the zero at its end."""
_DMAC, _SMAC, _ETYPE, _SWAPMAC, _ECN = 1, 2, 4, 8, 16
"""SKBMOD_F_*."""
_ADDRESS: Final = (1 << 48) - 1
_DSCP_BITS: Final = 0x3F
_IFE_ENCODE: Final = 1
_ETH_P_IFE: Final = 0xED3E
_NUMBERS: Final = {"skbmark": 4, "prio": 4, "tcindex": 2}
"""What IFE can carry, and its octets."""
_BPF_MAXINSNS: Final = 4096
_INSTRUCTION: Final = 8
_SO_ATTACH_FILTER: Final = 26


def _unable(kind: str) -> list[Step]:
    """The steps of an action that the node's pipeline cannot do: it may be made, and no filter can have it."""
    return [Beyond(NOT_OFFERED, f"TC action {kind} is not supported in filters")]


def simple(options: Attrs) -> Result:
    """A text that the kernel would log for each packet. EINVAL without one."""
    parms, text = options["parms"], options.get("data")
    if text is None:
        raise NetlinkError(errno.EINVAL)
    return [Beyond(NOT_OFFERED)], parms.action, (("parms", parms), ("data", text[:_SIMP_MAX_DATA]))


def skbmod(options: Attrs) -> Result:
    """New addresses or type for the Ethernet header, or the addresses exchanged, or a mark of congestion; EINVAL where
    it is none of them."""
    parms = options["parms"]
    given = [(name, flag) for name, flag in (("dmac", _DMAC), ("smac", _SMAC), ("etype", _ETYPE)) if name in options]
    flags = sum(flag for _, flag in given)
    flags = _ECN if parms.flags & _ECN else _SWAPMAC if parms.flags & _SWAPMAC else flags
    if not flags:
        raise NetlinkError(errno.EINVAL)
    steps: list[Step] = [Beyond(NOT_OFFERED)]
    back: list[tuple[str, Any]] = [("parms", parms._replace(flags=flags))]
    if flags in (_ECN, _SWAPMAC):
        steps.append(Congest() if flags == _ECN else SwapEthernet())
        return steps, parms.action, tuple(back)
    for name, field in (("dmac", "eth_dst"), ("smac", "eth_src")):
        if name in options:
            steps.append(SetField(field, Masked(int.from_bytes(options[name], "big"), _ADDRESS)))
    if "etype" in options:
        steps.append(SetEthertype(options["etype"]))
    return steps, parms.action, (*back, *((name, options[name]) for name, _ in given))


def nat(options: Attrs) -> Result:
    """Another address, without looking for the connection."""
    parms = options["parms"]
    return _unable("nat"), parms.action, (("parms", parms),)


def connmark(options: Attrs) -> Result:
    """The mark of the packet's connection."""
    parms = options["parms"]
    return _unable("connmark"), parms.action, (("parms", parms),)


def ctinfo(options: Attrs) -> Result:
    """What the mark of the packet's connection says, as its DSCP or mark. EINVAL for a mask that is no DSCP's."""
    parms, mask, state = options["parms"], options.get("dscp_mask"), options.get("dscp_statemask", 0)
    if mask is not None:
        if not mask or mask // (mask & -mask) != _DSCP_BITS:
            raise NetlinkError(errno.EINVAL, "act_ctinfo: dscp mask must be 6 contiguous bits")
        if mask & state:
            raise NetlinkError(errno.EINVAL, "act_ctinfo: dscp statemask must not overlap dscp mask")
    back: list[tuple[str, Any]] = [("tm", None), ("parms", parms), ("zone", options.get("zone", 0))]
    if mask:
        back += [("dscp_mask", mask), ("dscp_statemask", state)]
    if "cpmark_mask" in options:
        back.append(("cpmark_mask", options["cpmark_mask"]))
    back += [("dscp_set", 0), ("dscp_error", 0), ("cpmark_set", 0)]
    return _unable("ctinfo"), parms.action, tuple(back)


def ife(options: Attrs) -> Result:
    """The packet, with what the kernel knows of it, behind a header of its own (draft-ietf-forces-interfelfb). EINVAL,
    and ENOENT for what it cannot carry."""
    parms = options["parms"]
    if parms.flags & ~_IFE_ENCODE:
        raise NetlinkError(errno.EINVAL)
    listed = options.get("metalst")
    back: list[tuple[str, Any]] = [("parms", parms), ("tm", None)]
    encodes = bool(parms.flags & _IFE_ENCODE)
    if encodes:
        back += [(name, options[name]) for name in ("dmac", "smac") if any(options.get(name, b""))]
    back.append(("type", options.get("type", _ETH_P_IFE) if encodes else 0))
    carried: dict[str, bytes] = dict.fromkeys(_NUMBERS, b"")
    if isinstance(listed, Attrs):
        carried = {}
        for name, value in listed.items():
            if name not in _NUMBERS:
                raise NetlinkError(errno.ENOENT)
            if value and len(value) != _NUMBERS[str(name)]:
                raise NetlinkError(errno.EINVAL)
            carried[str(name)] = value
    if carried:
        back.append(("metalst", {name: carried[name] for name in _NUMBERS if name in carried}))
    return _unable("ife"), parms.action, tuple(back)


def bpf(options: Attrs) -> Result:
    """A classic BPF program. EINVAL for one that the kernel refuses; EOPNOTSUPP for one of eBPF, whose descriptor is
    the asking program's."""
    parms = options["parms"]
    classic = "ops_len" in options and "ops" in options
    if classic == ("fd" in options):
        raise NetlinkError(errno.EINVAL)
    if not classic:
        raise NetlinkError(errno.EOPNOTSUPP, "TC action bpf with a program of eBPF is not supported")
    length, code = options["ops_len"], options["ops"]
    if not 0 < length <= _BPF_MAXINSNS or length * _INSTRUCTION != len(code):
        raise NetlinkError(errno.EINVAL)
    _check_program(code)
    return _unable("bpf"), parms.action, (("parms", parms), ("ops_len", length), ("ops", code))


def _check_program(code: bytes) -> None:
    """Let the kernel look at a classic BPF program (bpf_check_classic); its error."""
    held = create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // _INSTRUCTION, addressof(held))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as scratch:
            scratch.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError as error:
        raise NetlinkError(error.errno or errno.EINVAL) from None


KINDS: Final = {
    "simple": simple,
    "skbmod": skbmod,
    "nat": nat,
    "connmark": connmark,
    "ctinfo": ctinfo,
    "ife": ife,
    "bpf": bpf,
}
