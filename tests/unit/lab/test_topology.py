# SPDX-License-Identifier: Apache-2.0
"""The topology file: what it means, and the one sentence for each way in which it can be wrong."""

from __future__ import annotations

import contextlib
import json
import re
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap2.lab.topology import End, Nic, Switch, Topology, TopologyError, load, parse

NODES = """
[[node]]
name = "hv1"
[[node.nic]]
name = "nic0"
total_vfs = 8

[[node]]
name = "hv2"
[[node.nic]]
name = "nic0"
ports = 2
"""


def guest(text: str) -> str:
    return f"{NODES}\n[[guest]]\n{text}\n"


def test_defaults_are_those_of_the_documentation() -> None:
    (node,) = parse('[[node]]\nname = "hv1"\n[[node.nic]]\n').nodes
    assert node.openvswitch
    assert node.connections == 262144
    assert node.nics == (Nic("nic0", 0, "ConnectX-5", "0000:03:00.0", 1, 8, 0, False, 262144),)


def test_a_second_nic_is_on_the_next_bus() -> None:
    (node,) = parse('[[node]]\nname = "hv1"\n[[node.nic]]\n[[node.nic]]\n').nodes
    assert [nic.pci for nic in node.nics] == ["0000:03:00.0", "0000:04:00.0"]
    assert [nic.netdev(0) for nic in node.nics] == ["enp3s0f0", "enp4s0f0"]


def test_virtual_functions_follow_the_physical_ones_port_by_port() -> None:
    nic = Nic("nic0", 0, "ConnectX-5", "0000:03:00.0", 2, 8, 0, False, 262144)
    assert [nic.pf_address(port) for port in (0, 1)] == ["0000:03:00.0", "0000:03:00.1"]
    assert nic.vf_address(0, 0) == "0000:03:00.2"
    assert nic.vf_address(0, 6) == "0000:03:01.0"
    assert nic.vf_address(1, 0) == "0000:03:01.2"
    assert nic.vf_netdev(1, 3) == "enp3s0f1v3"


def test_a_cable_joins_ports() -> None:
    (cable,) = parse(NODES + '[[cable]]\nends = ["hv1/nic0", "hv2/nic0/p1"]\n').cables
    assert cable.ends == (End("hv1", "nic0", 0, 0), End("hv2", "nic0", 0, 1))


def test_a_switch_joins_any_number_of_ports() -> None:
    (switch,) = parse(NODES + '[[switch]]\nname = "tor"\nends = ["hv1/nic0", "hv2/nic0/p0", "hv2/nic0/p1"]\n').switches
    assert switch == Switch("tor", (End("hv1", "nic0", 0, 0), End("hv2", "nic0", 0, 0), End("hv2", "nic0", 0, 1)))


def test_a_guest_takes_the_only_nic_of_its_node() -> None:
    (one,) = parse(
        guest('name = "vm1"\nnode = "hv1"\nvf = 3\nmac = "FA:16:3E:B9:B8:CE"\naddress = "10.0.0.1/24"')
    ).guests
    assert (one.nic.name, one.vf_netdev, one.device, one.mac) == ("nic0", "enp3s0f0v3", "eth0", "fa:16:3e:b9:b8:ce")


WRONG = {
    "not TOML": ("[[node", "not TOML"),
    "no node": ("", "no [[node]]"),
    "a node without a NIC": ('[[node]]\nname = "a"\n', "node a: there is no [[node.nic]]"),
    "unknown key at the top": (NODES + "[[gest]]\n", "gest is not a key"),
    "unknown key of a node": ('[[node]]\nname = "a"\ncolour = 1\n', "node a: colour is not a key"),
    "unknown key of a NIC": ('[[node]]\nname = "a"\n[[node.nic]]\nvf = 1\n', "node a: nic 1: vf is not a key"),
    "unknown key of a cable": (
        NODES + '[[cable]]\nends = ["hv1/nic0", "hv2/nic0"]\nmtu = 1\n',
        "cable 1: mtu is not a",
    ),
    "unknown key of a guest": (guest('name = "vm1"\nnode = "hv1"\nvf = 3\nvfs = 4'), "guest vm1: vfs is not a key"),
    "a table for an array": ("[node]\n", "node must be an array of tables"),
    "a wrong type": ("[[node]]\nname = 3\n", "node 1: name must be a string, not 3"),
    "true for a number": (
        '[[node]]\nname = "a"\n[[node.nic]]\nports = true\n',
        "ports must be a whole number, not True",
    ),
    "no name": ("[[node]]\n", "node 1: name is missing"),
    "an empty name": ('[[node]]\nname = ""\n', "node : name"),
    "a name with a slash": ('[[node]]\nname = "a/b"\n', "name 'a/b' must be"),
    "a name too long": (f'[[node]]\nname = "{"a" * 33}"\n', "has 33 characters, and 32 is the most"),
    "a NIC's name too long": (
        f'[[node]]\nname = "a"\n[[node.nic]]\nname = "{"n" * 16}"\n',
        "has 16 characters, and 15 is the most",
    ),
    "two nodes of a name": ('[[node]]\nname = "a"\n[[node]]\nname = "a"\n', "node: name a is there twice"),
    "a guest named as a node": (guest('name = "hv1"\nnode = "hv1"\nvf = 3'), "guest: name hv1 is there twice"),
    "two NICs of a name": (
        '[[node]]\nname = "a"\n[[node.nic]]\nname = "n"\n[[node.nic]]\nname = "n"\n',
        "node a: nic: name n is there twice",
    ),
    "two NICs at a place": (
        '[[node]]\nname = "a"\n[[node.nic]]\n[[node.nic]]\npci = "0000:03:00.0"\n',
        "node a: nic: pci 0000:03:00.0 is there twice",
    ),
    "an unknown model": ('[[node]]\nname = "a"\n[[node.nic]]\nmodel = "X"\n', "model 'X' is not one of ConnectX-4 Lx"),
    "a PCI address that is none": ('[[node]]\nname = "a"\n[[node.nic]]\npci = "03:00.0"\n', "pci '03:00.0' must be"),
    "a PCI address on bus 0": ('[[node]]\nname = "a"\n[[node.nic]]\npci = "0000:00:00.0"\n', "must be function 0"),
    "three ports": ('[[node]]\nname = "a"\n[[node.nic]]\nports = 3\n', "ports is 3, and must be 1 to 2"),
    "too many VFs": ('[[node]]\nname = "a"\n[[node.nic]]\ntotal_vfs = 128\n', "total_vfs is 128, and must be 0 to 127"),
    "more VFs than there can be": ('[[node]]\nname = "a"\n[[node.nic]]\nvfs = 9\n', "vfs is 9, and must be 0 to 8"),
    "more rules than the model has": (
        '[[node]]\nname = "a"\n[[node.nic]]\nmodel = "ConnectX-4 Lx"\nrules = 65537\n',
        "rules is 65537, and must be 256 to 65536",
    ),
    "connections that are too few": (
        '[[node]]\nname = "a"\nconnections = 255\n[[node.nic]]\n',
        "node a: connections is 255, and must be 256 to 4194304",
    ),
    "an unknown mode": ('[[node]]\nname = "a"\n[[node.nic]]\nmode = "x"\n', "mode 'x' must be legacy or switchdev"),
    "switchdev without VFs": ('[[node]]\nname = "a"\n[[node.nic]]\nmode = "switchdev"\n', "switchdev needs vfs"),
    "a cable of one end": (NODES + '[[cable]]\nends = ["hv1/nic0"]\n', "must name two ports"),
    "a cable without ends": (NODES + "[[cable]]\n", "must name two ports"),
    "ends that are no strings": (NODES + "[[cable]]\nends = [1, 2]\n", "ends must be a list of strings"),
    "an end that is no port": (NODES + '[[cable]]\nends = ["hv1", "hv2/nic0"]\n', "'hv1' is not NODE/NIC"),
    "a cable to no node": (
        NODES + '[[cable]]\nends = ["hv1/nic0", "hv3/nic0"]\n',
        "names node 'hv3', which there is not",
    ),
    "a cable to no NIC": (
        NODES + '[[cable]]\nends = ["hv1/nic1", "hv2/nic0"]\n',
        "names NIC 'nic1', which hv1 has not",
    ),
    "a cable to no port": (NODES + '[[cable]]\nends = ["hv1/nic0/p1", "hv2/nic0"]\n', "leads nowhere"),
    "a port with two cables": (
        NODES + '[[cable]]\nends = ["hv1/nic0", "hv2/nic0"]\n[[cable]]\nends = ["hv1/nic0", "hv2/nic0/p1"]\n',
        "the port hv1/nic0/p0 is there twice",
    ),
    "a port with a cable and a switch": (
        NODES + '[[cable]]\nends = ["hv1/nic0", "hv2/nic0"]\n[[switch]]\nname = "tor"\nends = ["hv1/nic0"]\n',
        "hv1/nic0/p0 is there twice",
    ),
    "a switch without a name": (NODES + '[[switch]]\nends = ["hv1/nic0"]\n', "switch 1: name is missing"),
    "two switches of one name": (NODES + '[[switch]]\nname = "a"\n[[switch]]\nname = "a"\n', "a is there twice"),
    "a cable from a port to itself": (NODES + '[[cable]]\nends = ["hv1/nic0", "hv1/nic0"]\n', "is there twice"),
    "a guest without a node": (guest('name = "vm1"\nvf = 3'), "guest vm1: node is missing"),
    "a guest of no node": (guest('name = "vm1"\nnode = "hv3"\nvf = 3'), "node is 'hv3', which there is not"),
    "a guest of no NIC": (guest('name = "vm1"\nnode = "hv1"\nnic = "x"\nvf = 3'), "names NIC 'x', which hv1 has not"),
    "a guest of no port": (guest('name = "vm1"\nnode = "hv1"\nport = 1\nvf = 3'), "port is 1, and must be 0 to 0"),
    "a guest without a VF": (guest('name = "vm1"\nnode = "hv1"'), "guest vm1: vf is missing"),
    "a VF out of range": (guest('name = "vm1"\nnode = "hv1"\nvf = 8'), "vf is 8, and nic0 of hv1 has 8 VFs, from 0"),
    "a negative VF": (guest('name = "vm1"\nnode = "hv1"\nvf = -1'), "vf is -1"),
    "a VF beyond those set": (
        '[[node]]\nname = "a"\n[[node.nic]]\nvfs = 2\n[[guest]]\nname = "g"\nnode = "a"\nvf = 2\n',
        "vf is 2, and nic0 of a has 2 VFs, from 0",
    ),
    "a VF for two guests": (
        guest('name = "vm1"\nnode = "hv1"\nvf = 3\n[[guest]]\nname = "vm2"\nnode = "hv1"\nvf = 3'),
        "vf 3 of hv1/nic0/p0 is there twice",
    ),
    "a device name too long": (
        guest('name = "vm1"\nnode = "hv1"\nvf = 3\ndevice = "abcdefghijklmnop"'),
        "device 'abcdefghijklmnop' has 16 characters, and 15 is the most",
    ),
    "a device name with a slash": (
        guest('name = "vm1"\nnode = "hv1"\nvf = 3\ndevice = "a/b"'),
        "device 'a/b' is not a",
    ),
    "a MAC that is none": (guest('name = "vm1"\nnode = "hv1"\nvf = 3\nmac = "fa:16"'), "mac 'fa:16' is not a MAC"),
    "a multicast MAC": (
        guest('name = "vm1"\nnode = "hv1"\nvf = 3\nmac = "01:00:00:00:00:01"'),
        "is not the address of",
    ),
    "an address without prefix": (
        guest('name = "vm1"\nnode = "hv1"\nvf = 3\naddress = "10.0.0.1"'),
        "lacks the prefix",
    ),
    "an address that is none": (guest('name = "vm1"\nnode = "hv1"\nvf = 3\naddress = "ten/8"'), "is not an address"),
    "a MAC twice": (
        guest(
            'name = "vm1"\nnode = "hv1"\nvf = 3\nmac = "fa:16:3e:b9:b8:ce"\n'
            '[[guest]]\nname = "vm2"\nnode = "hv2"\nvf = 3\nmac = "FA:16:3E:B9:B8:CE"'
        ),
        "guest: mac fa:16:3e:b9:b8:ce is there twice",
    ),
    "an address twice": (
        guest(
            'name = "vm1"\nnode = "hv1"\nvf = 3\naddress = "10.0.0.1/24"\n'
            '[[guest]]\nname = "vm2"\nnode = "hv2"\nvf = 3\naddress = "10.0.0.1/16"'
        ),
        "guest: address 10.0.0.1 is there twice",
    ),
}


@pytest.mark.parametrize(("text", "complaint"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_in_one_sentence(text: str, complaint: str) -> None:
    with pytest.raises(TopologyError) as caught:
        parse(text)
    sentence = str(caught.value)
    assert complaint in sentence
    assert "\n" not in sentence


def test_a_file_that_is_not_there_is_told_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"lab\.toml cannot be read: No such file or directory"):
        load(tmp_path / "lab.toml")


def test_a_file_that_is_wrong_is_told_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text("[[node]]\n")
    with pytest.raises(TopologyError, match=r"lab\.toml: node 1: name is missing"):
        load(tmp_path / "lab.toml")


KEYS = "name node nic vf vfs mode mac address ends ports total_vfs rules pci model device port openvswitch other"
TABLES = ("[[node]]", "[[node.nic]]", "[[cable]]", "[[switch]]", "[[guest]]", "[node]")
SCALARS = st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["hv1", "hv1/nic0", "switchdev"])
PAIRS = st.tuples(st.sampled_from(KEYS.split()), SCALARS | st.lists(SCALARS, max_size=3))
LINES = st.sampled_from(TABLES) | PAIRS.map(lambda pair: f"{pair[0]} = {json.dumps(pair[1])}")


@given(st.lists(LINES, max_size=12))
def test_no_file_does_more_than_be_refused(lines: list[str]) -> None:
    with contextlib.suppress(TopologyError):
        assert isinstance(parse("\n".join(lines)), Topology)


def test_the_examples_of_the_documentation_are_right() -> None:
    documentation = Path(__file__).parents[3] / "docs/lab.md"
    examples = re.findall(r"```toml\n(.*?)```", documentation.read_text(), re.DOTALL)
    assert [len(parse(example).nodes) for example in examples] == [2, 2]


@pytest.mark.parametrize("name", ["paths", "rates", "scale", "stateful"])
def test_those_of_the_benchmarks_are_right(name: str) -> None:
    assert parse(resources.files("asap2.lab").joinpath(f"bench/topologies/{name}.toml").read_text()).guests


def test_a_node_has_commands_that_set_it_up() -> None:
    (node,) = parse('[[node]]\nname = "a"\nsetup = ["true", "ip link"]\n[[node.nic]]').nodes
    assert node.setup == ("true", "ip link")
    with pytest.raises(TopologyError, match="node a: setup must be a list of strings"):
        parse('[[node]]\nname = "a"\nsetup = "true"\n[[node.nic]]')
