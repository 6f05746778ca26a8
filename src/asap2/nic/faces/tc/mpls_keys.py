# SPDX-License-Identifier: Apache-2.0
"""The flower classifier's keys of MPLS: label stack entries, whole or by parts.

Source: fl_set_key_mpls() and fl_set_key_mpls_opts() of net/sched/cls_flower.c, Linux 6.1.
"""

from __future__ import annotations

import errno
from typing import Any, Final

from asap2.netlink.codec import Attrs
from asap2.netlink.wire import NetlinkError
from asap2.nic.rules import Frag, Masked
from asap2.nic.silicon.abi import MPLS_LABELS

_PARTS: Final = (("ttl", 0, 8), ("bos", 8, 1), ("tc", 9, 3), ("label", 12, 20))
"""The parts of an entry: name, lowest bit, width. In the order in which the kernel reads them and gives them back."""
_REFUSED: Final = {
    "bos": "Bottom Of Stack (BOS) must be 0 or 1",
    "tc": "Traffic Class (TC) must be between 0 and 7",
    "label": "Label must be between 0 and 1048575",
}
_DEEPEST: Final = 7
"""FLOW_DIS_MPLS_MAX."""
KEYS: Final = ("key_mpls_ttl", "key_mpls_bos", "key_mpls_tc", "key_mpls_label", "key_mpls_opts")
_SHOWN: Final = ("key_mpls_ttl", "key_mpls_tc", "key_mpls_label", "key_mpls_bos")

NEVER: Final = {"ip_frag": Masked(Frag.FIRST, Frag.IS_FRAGMENT | Frag.FIRST)}
"""What no packet is: a first fragment, but no fragment."""
_BOTTOM: Final = 1 << 8

Dump = list[tuple[str, Any]]


def parse(options: Attrs) -> tuple[dict[str, Masked], Dump]:
    """The fields that a filter's *options* match, and what is given back. EINVAL, EBADMSG; EOPNOTSUPP for entries that
    the pipeline does not look at."""
    opts = options.get("key_mpls_opts")
    if opts is None:
        entry = {name: options[f"key_mpls_{name}"] for name, _, _ in _PARTS if f"key_mpls_{name}" in options}
        found = _entry(entry)
        shown = [(name, options[name]) for name in _SHOWN if name in options]
        return ({"mpls_lse1": found} if found.mask else {}), shown
    if any(key in options for key in KEYS[:-1]):
        text = (
            "MPLS label, Traffic Class, Bottom Of Stack and Time To Live must be encapsulated in the MPLS options "
            "attribute"
        )
        raise NetlinkError(errno.EBADMSG, text)
    fields: dict[str, Masked] = {}
    deepest = 0
    for lse in opts.get("lse", ()):
        depth = lse.get("depth")
        if depth is None:
            raise NetlinkError(errno.EINVAL, 'Missing MPLS option "depth"')
        if not 0 < depth <= _DEEPEST:
            raise NetlinkError(errno.EINVAL, "Invalid MPLS depth")
        found = _entry(lse)
        if depth > MPLS_LABELS + (not found.mask):
            raise NetlinkError(errno.EOPNOTSUPP, f"MPLS label stack entries below {MPLS_LABELS} are not supported")
        if found.mask:
            fields[f"mpls_lse{depth}"] = found
        deepest = max(deepest, depth)
    for above in range(1, deepest):  # a packet has an entry where none above it is the bottom
        found = fields.get(f"mpls_lse{above}", Masked(0, 0))
        fields[f"mpls_lse{above}"] = Masked(found.value, found.mask | _BOTTOM)
        if found.value & _BOTTOM:
            fields |= NEVER
    return fields, [("key_mpls_opts", opts)]


def _entry(parts: Attrs | dict[str, int]) -> Masked:
    value = mask = 0
    for name, low, width in _PARTS:
        given = parts.get(name)
        if given is None:
            continue
        if given >> width:
            raise NetlinkError(errno.EINVAL, _REFUSED[name])
        value |= given << low
        mask |= ((1 << width) - 1) << low
    return Masked(value, mask)
