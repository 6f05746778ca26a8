# SPDX-License-Identifier: Apache-2.0
"""Where programs run, by tcx and by filters of a clsact qdisc, as before Linux 6.6: both ways do the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from asap2.nic.silicon import hooks
from tests.system.nic.silicon.conftest import MAC, REP1, VF1, VF2, Nic
from tests.system.nic.silicon.network import ethernet

TC_ACT_SHOT = 2


@pytest.fixture(params=["tcx", "clsact"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How programs are attached."""
    if request.param == "clsact":
        monkeypatch.setattr(hooks, "has_tcx", lambda: False)
    elif not hooks.has_tcx():
        pytest.skip("this kernel has no tcx")
    return str(request.param)


def discard() -> int:
    """A program that drops every packet."""
    return hooks.load(b"discard", ((0xB7, 0, 0, TC_ACT_SHOT), (0x95, 0, 0, 0)))


def numbered(number: int) -> bytes:
    """A frame from VF 1 that goes to its representor."""
    return ethernet(MAC[VF2], MAC[VF1], b"%d" % number)


def test_a_program_runs_in_its_turn_and_until_it_is_detached(nic: Nic, pin_dir: Path) -> None:
    seen, guest = nic.tap(REP1), nic.tap(VF1)
    device, namespace = nic.silicon.ifindex("pf0vf1"), nic.silicon.fd
    first, last = pin_dir / "link-first", pin_dir / "link-last"

    def forwards(number: int) -> bool:
        """Whether a frame goes to the representor, and none that was sent before it."""
        guest.send(numbered(number))
        return seen.receive() == numbered(number)

    assert forwards(1)
    hooks.attach(discard(), device, "ingress", namespace, last, first=False)
    assert forwards(2)
    nic.pipeline.detach(device)
    guest.send(numbered(3))  # dropped by the last
    hooks.attach(discard(), device, "ingress", namespace, first)
    nic.pipeline.attach(device, namespace, first=False)
    guest.send(numbered(4))  # dropped by the first
    hooks.attach(discard(), device, "ingress", namespace, first)
    guest.send(numbered(5))  # and by what has taken its place
    assert hooks.is_attached(first) == hooks.has_tcx()
    hooks.detach(first)
    hooks.detach(last)
    assert not hooks.is_attached(first)
    assert forwards(6)
    for number in range(7, 9):
        hooks.attach(discard(), device, "ingress", namespace, first)
        guest.send(numbered(0))  # dropped
        hooks.detach(first)
        assert forwards(number)
