# SPDX-License-Identifier: Apache-2.0
"""The topologies that come with the program."""

from __future__ import annotations

from pathlib import Path

import pytest

from asap2.errors import UsageError
from asap2.lab import gallery
from asap2.lab.layout import MOST_NODES
from asap2.lab.topology import TopologyError


@pytest.mark.parametrize("name", gallery.names())
def test_each_is_right_and_says_what_it_is(name: str) -> None:
    assert gallery.named(name).guests
    assert 20 < len(gallery.names()[name]) < 120


def test_there_are_about_ten() -> None:
    assert len(gallery.names()) >= 10


@pytest.mark.parametrize("nodes", [1, 2, MOST_NODES])
def test_a_rack_has_as_many_nodes_as_are_wanted_and_a_guest_on_each(nodes: int) -> None:
    made = gallery.rack(nodes)
    assert [node.name for node in made.nodes] == [f"hv{number}" for number in range(1, nodes + 1)]
    assert [guest.node for guest in made.guests] == [node.name for node in made.nodes]
    assert len(made.switches) == (nodes > 1)


def test_four_nodes_are_a_rack_of_four() -> None:
    assert gallery.named("four-nodes") == gallery.rack(4)


def test_a_name_that_there_is_not_is_told_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="there is no topology 'three'; there is bad-cable, firewall, four-nodes"):
        gallery.named("three")


def test_a_file_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert gallery.named("vlan").guests
    (tmp_path / "vlan").write_text("colour = 1\n")
    with pytest.raises(TopologyError, match="vlan: the file: "):
        gallery.named("vlan")
    with pytest.raises(TopologyError, match=r"nothing cannot be read"):
        gallery.named("./nothing")
    with pytest.raises(TopologyError, match=r"nothing.toml cannot be read"):
        gallery.named("nothing.toml")
