# SPDX-License-Identifier: Apache-2.0
"""Rules as data and back."""

from __future__ import annotations

import json

from asap2.nic.rule_data import of_rule, to_rule
from asap2.nic.rules import (
    CheckLength,
    Clone,
    Ct,
    Encap,
    Hash,
    HashAlgorithm,
    Masked,
    Match,
    Output,
    Psample,
    Rule,
    SetField,
    SetTunnel,
)


def test_a_rule_is_the_same_after_json() -> None:
    rule = Rule(
        0x8000_0001,
        256,
        7 << 16 | 1,
        Match(eth_type=Masked(0x0800, 0xFFFF), ip_dst=Masked(1 << 100, 1 << 100)),
        (
            Clone((Output(5, 3), Hash(HashAlgorithm.SYMMETRIC, 9))),
            SetField("ip_ttl", Masked(3, 0xFF)),
            Ct(5, commit=True, mark=Masked(1, 1)),
            CheckLength(1500, (), (Encap("geneve", 3, bytes(4), bytes(4), options=b"\1\2\3\4"),)),
            Psample(1, 2, tunnel=SetTunnel(1, bytes(16), bytes(16)), cookie=b"x"),
        ),
    )
    assert to_rule(json.loads(json.dumps(of_rule(rule)))) == rule
