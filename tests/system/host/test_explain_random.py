# SPDX-License-Identifier: Apache-2.0
"""Random flows in nodes' datapaths: none is left unexplained; each is explained as the switch's own debug log has it,
which ``explain`` is not shown."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from asap2.host.explain.reasons import REASONS
from tests.system.host.conftest import REPOSITORY
from tests.system.host.explained import Explained, explaining

SAID = (
    ("attribute pkt_mark", "match.skb-mark"),
    ("attribute skb_priority", "match.skb-priority"),
    ("attribute dp_hash", "match.dp-hash"),
    ("attribute packet_type", "match.packet-type"),
    ("non-ethernet", "match.no-ethertype"),
    ("multiple mpls_lses", "match.mpls-stack"),
    ("IPv6 fragments|attribute nw_tos", "match.ipv6-fragment"),
    ("not supported on fragments", "action.set-fragment"),
    ("match for chain", r"(match|action|tc)\..*|taken-now"),  # by now another flow may lead there
    ("unknown attribute", r"match\.(other|ct-state|ct-tuple|nd|nsh|tunnel)"),
    (r"Can only support \d+ actions", "action.too-many"),
    ("can't offload rewrite", "action.set-protocol"),
    ("unsupported set action|unsupported sub attribute|too many pedit", "action.set-field"),
    ("unsupported tunnel key", "action.tunnel-option"),
    ("unsupported put action type: 2$", r"action\.(userspace|controller|slow-path|sampling)"),
    ("unsupported put action type: 6$", "action.sampling"),
    ("unsupported put action type: 13$", "action.truncate"),
    ("unsupported put action type", r"action\.(clone|hash|ethernet|nsh|other)"),
)
"""What the debug log says of a flow, and the codes (a pattern) of which one is then right."""
IN_TC = r"port\.|nic\.|switch\.|taken-now"
"""Codes of flows that TC has and the NIC has not."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Explained]:
    """Two hypervisors that offload."""
    with explaining() as lab:
        yield lab


def wrong(one: dict[str, Any]) -> str | None:
    """What is wrong with an explanation; None when it fits what the switch logged."""
    code = one["silent"][0]
    if code not in REASONS or code.endswith("unexplained"):
        return f"unexplained: {code}"
    log = "\n".join(one["log"])
    if "added flow" in log:
        expected = "offloaded" if one["offloaded"] == "yes" else IN_TC
        return None if re.match(expected, code) else f"it is in TC, not {code}"
    for words, codes in SAID:
        if re.search(words, log, re.MULTILINE):
            return None if re.fullmatch(codes, code) else f"the log says {words!r}, not {code}"
    if code in ("taken-now", "offloaded") or code.startswith("nic."):
        return f"it is not in TC, yet {code}"
    return None


OTHER_SEED = int(os.environ.get("ASAP2_TEST_SEED", "542688942"))
"""To look further: any number below 2**30."""


@pytest.mark.parametrize("first", [1, OTHER_SEED])
@pytest.mark.parametrize("node", ["hv1", "hv2"])
def test_random_flows_are_explained_as_the_switch_logs_it(nodes: Explained, node: str, first: int) -> None:
    """Each flow is put in with ``dpctl/add-flow``; *first* is its first seed."""
    done = nodes.run(node, f"cd {REPOSITORY} && {sys.executable} -m tests.system.host.fuzz {first} 400")
    assert done.returncode == 0, done.stderr
    flows = json.loads(done.stdout)
    assert len(flows) > 250
    bad = [f"{why}: {one['text']}\n{one['silent']}\n{one['log']}" for one in flows if (why := wrong(one))]
    assert not bad, "\n\n".join(bad[:5])
    codes = Counter(one["silent"][0] for one in flows)
    assert codes
    if first == 1:  # of others there may be few by chance
        assert len(codes) > 20, codes
        assert codes["offloaded"] > 3
