# SPDX-License-Identifier: Apache-2.0
"""TC rules do in the software NIC what they do in a real kernel's TC software: answers, frames out, counters."""

from __future__ import annotations

from random import SystemRandom

import pytest

from asap2.netlink.tables import actions as ta
from asap2.netlink.tables import tc
from tests.system.nic.silicon.packets import ipv4, udp
from tests.system.realkernel import flows, guest, machine, ours
from tests.system.realkernel.actions import mirred
from tests.system.realkernel.campaign import campaign, explained
from tests.system.realkernel.compare import differences
from tests.system.realkernel.machine import Ask, Case, Send, ask, send

CASES = 1000


@pytest.mark.parametrize("seed", [1, SystemRandom().randrange(1 << 31)], ids=["fixed seed", "new seed"])
def test_rules_do_what_they_do_in_a_real_kernel(seed: int) -> None:
    print(f"python -m tests.system.realkernel --seed {seed} --cases {CASES}")
    tally = campaign(seed, CASES)
    print(tally)
    assert not tally.differing, "\n".join([f"seed {seed}: {tally}", *explained(tally)])
    assert tally.matched > tally.frames // 4, f"seed {seed}: too few frames find a rule: {tally}"
    assert tally.set_aside.total() <= CASES // 100, f"seed {seed}: too many cases are not compared: {tally}"


def _to(last: int, out: int, handle: int = 0) -> Ask:
    """Packets to 10.0.0.*last* go out of port *out*; the filter is *handle*, or a new one."""
    header = tc.Tcmsg(0, guest.NEAR, handle, tc.TC_H_MIN_INGRESS, tc.info(1, 0x0800))
    options = {
        "key_eth_type": 0x0800,
        "key_ipv4_dst": bytes((10, 0, 0, last)),
        "act": [mirred(out, ta.TCA_EGRESS_REDIR, ta.TC_ACT_STOLEN)],
        "flags": 0,
    }
    return ask(
        tc.RTM_NEWTFILTER, flows.NLM_F_CREATE, tc.TC.encode(header, {"kind": "flower", "chain": 0, "options": options})
    )


def _frame(last: int) -> Send:
    packet = ipv4("10.0.0.9", f"10.0.0.{last}", 17, udp(1, 2, bytes(20)))
    return send(0, bytes.fromhex("0200000000010200000000020800") + packet)


def _twins(*steps: Ask | Send) -> Case:
    return [flows.add_qdisc(0), _to(1, 1), _to(2, 2), *steps, flows.dump(0), flows.remove_qdisc(0)]


TWINS = {
    "the newer of two with one key is met": _twins(_to(1, 3, 2), _frame(1), _frame(2)),
    "whatever their order": _twins(_to(2, 3, 1), _frame(1), _frame(2)),
    "without it the older": _twins(_to(1, 3, 2), flows.remove(_to(1, 3), 2), _frame(1), _to(1, 2), _frame(1)),
    "without the older the newer": _twins(_to(1, 3, 2), flows.remove(_to(1, 3), 1), _frame(1), _to(1, 2), _frame(1)),
    "changed again": _twins(_to(1, 3, 2), _to(1, 2, 1), _frame(1), _to(2, 3, 2), _frame(1), _frame(2)),
}
"""Filter 2 is overwritten with the key of filter 1, or the other way round."""


def test_a_filter_is_overwritten_with_the_key_of_another() -> None:
    for (name, case), result in zip(TWINS.items(), machine.run(list(TWINS.values())), strict=True):
        assert not differences(case, ours.run(case), result), name
