# SPDX-License-Identifier: Apache-2.0
"""A driver's refusal to a reason's code: by its words (extended acknowledgements of mlx5, ice, nfp, bnxt_en and of
the kernel's TC), or else by what of the rule it refuses."""

from __future__ import annotations

import errno
import re

from asap2.host.inventory import FlowTrial

WORDS = (
    ("port.feature-off", r"TC offload is disabled"),
    ("nic.chain", r"chain is out of supported range|chain.*not supported|[Gg]oto .*(?:not supported|not allowed)"),
    ("nic.inline", r"min inline|inline"),
    ("nic.meter", r"conform|exceed action|peakrate|flow meter"),
    ("nic.vlan", r"vlan (?:push|pop)|Total vlans|VLAN rewrite|VLAN prio"),
    ("nic.ct-state", r"matching on ct_state"),
    ("nic.ct", r"offload of ct (?:matching|action)"),
    ("nic.match", r"[Mm]atching on|Match on|Unsupported key|L4 matching|[Uu]nsupported (?:match|flower)|flower key"),
    ("nic.rewrite", r"pedit|re-?write|csum"),
    ("nic.outputs", r"more output ports|duplicate output"),
    ("nic.hairpin", r"VF to itself|both uplink"),
    ("nic.to-host", r"ingress|int(?:ernal)? port"),
    ("nic.other-switch", r"same switch|same HW|not an? .*representor|not on same"),
    ("nic.mirror", r"split rule|port mirroring"),
    ("nic.tunnel-route", r"[Rr]oute|[Nn]eigh"),
    ("nic.tunnel", r"[Tt]unnel|[Dd]ecap|[Ee]ncap|VXLAN port"),
    ("nic.full", r"[Nn]o (?:more )?space|table is full"),
)
"""Codes by the words of a refusal, the first that fits."""
ACTIONS = {
    "vlan": "nic.vlan",
    "pedit": "nic.rewrite",
    "csum": "nic.rewrite",
    "tunnel_key": "nic.tunnel",
    "mirred": "nic.other-switch",
    "gact": "nic.chain",
    "police": "nic.meter",
    "ct": "nic.ct",
}
"""Codes by an action without which the rule is taken."""


def code(tried: FlowTrial) -> str:
    """The code of a rule that the NIC refused."""
    if tried.error == errno.ENOSPC and not tried.in_words:
        return "nic.full"
    if tried.error in (errno.ENETUNREACH, errno.EHOSTUNREACH) and not tried.in_words:
        return "nic.tunnel-route"
    if tried.in_words:
        for found, pattern in WORDS:
            if re.search(pattern, tried.refusal):
                return found
    kinds = [part.partition(" ") for culprit in tried.culprits for part in culprit.split(" and ")]
    if any(kind == "match" for kind, _, _ in kinds):
        return "nic.match"
    for _, _, name in kinds:
        if name in ACTIONS:
            return ACTIONS[name]
    return "nic.refused"


def words(tried: FlowTrial) -> str:
    """What was refused, for people."""
    said = (
        f"the NIC says: {tried.refusal}" if tried.in_words else f"the NIC refuses without a message ({tried.refusal})"
    )
    return said + (f"; without {' or '.join(tried.culprits)} it is taken" if tried.culprits else "")
