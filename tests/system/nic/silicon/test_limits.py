# SPDX-License-Identifier: Apache-2.0
"""A full pipeline, long action lists, devices that go, and a process killed in the middle of a change."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asap2.nic.rules import Action, Masked, Match, Output, PushVlan, Rule
from asap2.nic.silicon import abi
from asap2.nic.silicon.pipeline import Miss, Pipeline, Port, PortKind
from tests.system.nic.silicon.conftest import MAC, REP1, VF1, VF2, WIRE, Nic
from tests.system.nic.silicon.network import Tap, ethernet, veth

TO_VF2 = Match(eth_dst=Masked(int.from_bytes(MAC[VF2], "big"), 2**48 - 1))
FULL = 64
MASKS = 5000


class Killed(BaseException):
    """Stands for a process that ends at once."""


def rule(number: int, *, table: int = 0, actions: tuple[Action, ...] = (Output(VF2),)) -> Rule:
    """One of many rules with one mask."""
    return Rule(table, VF1, 1, Match(ip_src=Masked(number, 0xFFFFFFFF)), actions)


@pytest.fixture
def pipeline(pin_dir: Path) -> Iterator[Pipeline]:
    """A small pipeline that only tells what it would do."""
    opened = Pipeline.open(pin_dir, max_rules=FULL, tracing=True)
    yield opened
    opened.destroy()


def test_a_full_pipeline_says_so_and_has_room_again_for_every_rule_removed(pipeline: Pipeline) -> None:
    handles = [pipeline.add(rule(n)) for n in range(FULL)]
    for turn in range(3):
        with pytest.raises(OSError, match="no room for more than 64 rules") as e:
            pipeline.add(rule(FULL + turn))
        assert e.value.errno == errno.ENOSPC
        pipeline.remove(handles[turn])
        pipeline.add(rule(1000 + turn))
    assert len(pipeline.rules) == FULL


def test_what_is_full_does_not_matter_nothing_is_left_of_a_refused_rule(pipeline: Pipeline) -> None:
    def long_list(number: int) -> Rule:
        tags = (PushVlan((500 * number + n) % 4096, n % 8) for n in range(500))
        return rule(number, actions=(*tags, Output(VF2)))

    added = [pipeline.add(long_list(n)) for n in range(2)]
    with pytest.raises(OSError, match="no room for more actions"):
        pipeline.add(long_list(2))
    assert list(pipeline.rules) == added
    for handle in added:
        pipeline.remove(handle)
    for n in range(FULL):
        pipeline.add(rule(n, table=n))


def test_a_list_as_long_as_may_be_is_done_to_the_end(pipeline: Pipeline) -> None:
    pipeline.set_port(Port(VF1, 101, PortKind.VF, tables=(0,)))
    pipeline.set_port(Port(VF2, 102, PortKind.VF))
    pipeline.add(Rule(0, VF1, 1, Match(), (Output(VF2),) * abi.ACTIONS))
    events = pipeline.trace(ethernet(MAC[VF2], MAC[VF1]), pipeline.ports[VF1])
    assert len(events) == 1 + abi.ACTIONS


def test_a_list_of_more_masks_than_a_thousand_is_searched_to_the_end(pin_dir: Path) -> None:
    pipeline = Pipeline.open(pin_dir, max_rules=8192, tracing=True)
    try:
        pipeline.set_port(Port(VF1, 101, PortKind.VF, tables=(0,), miss=Miss.DROP))
        made = [
            pipeline.add(Rule(0, VF1, 1, Match(eth_dst=Masked(n + 1, n + 1), eth_src=Masked(0, n + 1))))
            for n in range(MASKS - 1)
        ]
        last = pipeline.add(Rule(0, VF1, 1, Match(eth_type=Masked(0x88B5, 0xFFFF))))
        for _ in range(2):
            events = pipeline.trace(ethernet(bytes(6), bytes(6)), pipeline.ports[VF1])
            assert getattr(events[0], "handle", None) == last
        assert pipeline.lookups().mask_hits == MASKS
        for handle in made:
            pipeline.remove(handle)
        assert pipeline.lookups().masks == 1
    finally:
        pipeline.destroy()


@pytest.mark.parametrize("moment", ["actions written", "key added", "key removed", "mask linked"])
def test_a_change_cut_off_by_a_kill_is_undone_when_the_pipeline_is_opened_again(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    pipeline.set_port(Port(VF1, 101, PortKind.VF, tables=(0,), miss=Miss.DROP))
    stays = pipeline.add(rule(1))
    goes = pipeline.add(Rule(0, VF1, 7, TO_VF2, (Output(99),)))

    def killed(*_: object) -> None:
        raise Killed

    moments: dict[str, tuple[object, str, Callable[[], object]]] = {
        "actions written": (pipeline._lists, "hold", lambda: pipeline.add(Rule(0, VF1, 1, TO_VF2, (Output(77),)))),
        "key added": (pipeline._lists, "publish", lambda: pipeline.add(Rule(0, VF1, 1, TO_VF2, (Output(77),)))),
        "mask linked": (pipeline._layout.mask_list_of, "update", lambda: pipeline.add(Rule(3, VF1, 1, TO_VF2))),
        "key removed": (pipeline._lists, "drop", lambda: pipeline.remove(goes)),
    }
    patched, name, change = moments[moment]
    with monkeypatch.context() as patch:
        patch.setattr(patched, name, killed)
        with pytest.raises(Killed):
            change()
    expected = {handle: r for handle, r in pipeline.rules.items() if handle != goes or moment != "key removed"}
    again = Pipeline.open(pipeline.directory)
    assert again.rules == expected
    assert stays in expected
    assert again.lookups().masks == len({r.match for r in expected.values()})
    for n in range(2, 2 + FULL - len(expected)):
        again.add(rule(n))
    for handle in again.rules:
        again.remove(handle)
    again.close()


def test_a_device_that_went_leaves_its_number_to_the_next(nic: Nic) -> None:
    index = nic.silicon.ifindex("pf0vf2")
    nic.silicon.links(lambda ipr: ipr.link("del", index=index))
    veth(nic.guests[VF2], "vf2", nic.silicon, "pf0vf2", MAC[VF2])
    nic.pipeline.attach(nic.silicon.ifindex("pf0vf2"), nic.silicon.fd)
    nic.set_port(VF2)
    nic.pipeline.add(Rule(0, VF2, 1, Match(), (Output(WIRE),)))
    nic.pipeline.add(Rule(0, VF1, 1, Match(), (Output(VF2),)))
    frame, back = ethernet(MAC[VF2], MAC[VF1]), ethernet(MAC[WIRE], MAC[VF2])
    seen, far = nic.tap(VF2), nic.tap(WIRE)
    nic.tap(VF1).send(frame)
    assert seen.receive() == frame
    seen.send(back)
    assert far.receive() == back


def test_a_detached_device_is_left_to_the_network_stack(nic: Nic) -> None:
    host, guest, inside = nic.tap(VF1), nic.tap(REP1), Tap(nic.silicon, "pf0rep1")
    nic.pipeline.detach(nic.silicon.ifindex("pf0rep1"))
    nic.pipeline.detach(nic.silicon.ifindex("pf0rep1"))
    lost, last = ethernet(MAC[VF1], MAC[VF2], b"lost"), ethernet(MAC[VF1], MAC[VF2], b"last")
    guest.send(lost)
    assert inside.receive() == lost
    # The tap comes first; the rest of the packet's way is over when a grace period is.
    nic.pipeline._layout.grace_period()
    inside.close()
    nic.pipeline.attach(nic.silicon.ifindex("pf0rep1"), nic.silicon.fd)
    guest.send(last)
    assert host.receive_all(last) == []


def test_a_device_that_is_gone_can_be_detached(nic: Nic) -> None:
    index = nic.silicon.ifindex("pf0vf2")
    nic.silicon.links(lambda ipr: ipr.link("del", index=index))
    nic.pipeline.detach(index)
    assert not list(nic.pipeline.directory.glob(f"link-*-{index}"))


def test_attaching_to_a_device_that_is_not_there_says_so(nic: Nic) -> None:
    with pytest.raises(OSError, match="cannot attach the eSwitch program to device 9999") as e:
        nic.pipeline.attach(9999, nic.silicon.fd)
    assert e.value.errno == errno.ENODEV
