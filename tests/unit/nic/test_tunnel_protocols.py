# SPDX-License-Identifier: Apache-2.0
"""The tunnel protocols: each one's header, what the rest of the NIC asks of it, and that one not over UDP fits."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from asap2.netlink.tables import actions, link, ovs
from asap2.nic import tunnels
from asap2.nic.faces.ethtool.messages import TUNNEL_TYPES
from asap2.nic.model import MODELS
from asap2.nic.rules import Encap, Match
from asap2.nic.silicon.abi import OUTER_MAX
from asap2.nic.silicon.actioncodes import unsupported
from asap2.nic.silicon.encaps import Encaps, outer
from asap2.nic.silicon.map_sizes import Layout
from asap2.nic.silicon.maps import EncapRecord
from asap2.nic.tunnels import PROTOCOLS, Header, TunnelProtocol, Udp
from asap2.nic.tunnels.geneve import GENEVE
from asap2.nic.tunnels.gre import GRE
from asap2.nic.underlay.udp_ports import UdpPorts

SILICON = Path(tunnels.__file__).parents[1] / "silicon"
NEAR, FAR = bytes.fromhex("0200000000aa"), bytes.fromhex("0200000000bb")
ENDS = [(bytes([172, 16, 0, 1]), bytes([172, 16, 0, 2])), (b"\xfd" + bytes(15), b"\xfd" + bytes(14) + b"\1")]
EVERY = pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)


def _encap(name: str, tun_id: int, ends: tuple[bytes, bytes] = ENDS[0]) -> Encap:
    return Encap(name, tun_id, *ends, eth_src=NEAR, eth_dst=FAR)


def _ids(protocol: TunnelProtocol) -> list[int | None]:
    every = [1 << bit for bit in range(protocol.id.bits)]
    return [0, *every, (1 << protocol.id.bits) - 1, *([None] if protocol.id.optional else [])]


@EVERY
def test_a_header_comes_back_with_its_id(protocol: TunnelProtocol) -> None:
    for tun_id in _ids(protocol):
        data = protocol.build(Header(tun_id))
        assert protocol.parse(data) == (Header(tun_id), len(data))
        assert protocol.parse(data + b"inside") == (Header(tun_id), len(data))


@EVERY
def test_what_is_cut_off_is_no_header(protocol: TunnelProtocol) -> None:
    data = protocol.build(Header(1))
    for length in range(len(data)):
        assert protocol.parse(data[:length]) is None


@EVERY
@pytest.mark.parametrize("ends", ENDS, ids=["IPv4", "IPv6"])
def test_outer_headers_end_in_the_protocols_and_have_room(protocol: TunnelProtocol, ends: tuple[bytes, bytes]) -> None:
    for tun_id in (0, 1, (1 << protocol.id.bits) - 1):
        made = outer(_encap(protocol.name, tun_id, ends))
        header = protocol.build(Header(tun_id))
        assert made.header.endswith(header)
        udp = 8 if isinstance(protocol.over, Udp) else 0
        assert made.has_udp == bool(udp)
        assert len(made.header) == made.l4 + udp + len(header) <= OUTER_MAX - 18


@EVERY
@pytest.mark.parametrize("ends", ENDS, ids=["IPv4", "IPv6"])
def test_a_new_daemon_reads_back_what_a_slot_holds(protocol: TunnelProtocol, ends: tuple[bytes, bytes]) -> None:
    layout = SimpleNamespace(encaps=(EncapRecord * 3)(), grace_period=lambda: None)
    slots, after = Encaps(cast(Layout, layout)), Encaps(cast(Layout, layout))
    for tun_id in (0, (1 << protocol.id.bits) - 1):
        encap = replace(_encap(protocol.name, tun_id, ends), tos=0xB8, ttl=9)
        assert after.read(slots.take(encap)) == encap


@EVERY
def test_an_encapsulation_goes_to_the_protocols_own_port_unless_it_says_another(protocol: TunnelProtocol) -> None:
    assert _encap(protocol.name, 1).tp_dst == protocol.port
    for port in (0, 8472):
        assert Encap(protocol.name, 1, *ENDS[0], tp_dst=port).tp_dst == port


@EVERY
def test_an_id_that_is_too_wide_is_refused_by_its_name(protocol: TunnelProtocol) -> None:
    widest = (1 << protocol.id.bits) - 1
    assert unsupported(Match(), [_encap(protocol.name, widest)]) is None
    for tun_id in (-1, widest + 1):
        reason = unsupported(Match(), [_encap(protocol.name, tun_id)])
        assert reason == f"a {protocol.id.name} has {protocol.id.bits} bits"


@EVERY
def test_the_kernels_numbers_are_those_of_the_tables(protocol: TunnelProtocol) -> None:
    assert getattr(ovs, f"OVS_VPORT_TYPE_{protocol.name.upper()}") == protocol.vport_type
    for kind in protocol.links:
        table = getattr(link, kind.name.upper())
        names = {number: field[0] for number, field in table.fields.items()}
        assert kind.lower is None or names[kind.lower] == "link"
        assert kind.port is None or names[kind.port] == "port"
    if isinstance(protocol.over, Udp) and protocol.over.ethtool_type is not None:
        assert TUNNEL_TYPES[protocol.over.ethtool_type] == protocol.name
    if protocol.options is not None:
        assert protocol.options.tc in {field[0] for field in actions.ENC_OPTS.fields.values()}
        assert protocol.options.ovs in {field[0] for field in ovs.TUNNEL_KEY.fields.values()}


@EVERY
def test_the_program_has_a_header_for_it(protocol: TunnelProtocol) -> None:
    assert f'#include "{protocol.name}.h"' in (SILICON / "tunnel.h").read_text()
    assert re.search(rf"^// SPDX.*\n/\* {protocol.name}", (SILICON / f"{protocol.name}.h").read_text(), re.IGNORECASE)


def test_names_numbers_and_kinds_are_each_of_one_protocol() -> None:
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())
    assert len(tunnels.BY_NUMBER) == len(PROTOCOLS)
    assert all(0 <= number < 256 for number in tunnels.BY_NUMBER)
    kinds = [kind.name for protocol in PROTOCOLS.values() for kind in protocol.links]
    assert len(kinds) == len(set(kinds))
    for protocol in PROTOCOLS.values():
        for kind in protocol.links:
            assert tunnels.of_link(kind.name) is protocol
            assert tunnels.link_kind(kind.name) is kind
    assert tunnels.of_link("veth") is None
    assert tunnels.link_kind("veth") is None


@pytest.mark.parametrize("name", MODELS)
def test_a_model_offloads_tunnels_that_exist(name: str) -> None:
    assert MODELS[name].tunnels <= PROTOCOLS.keys()


def test_the_network_identifier_of_vxlan_needs_its_flag() -> None:
    vxlan = PROTOCOLS["vxlan"]
    assert vxlan.build(Header(0x123456)) == bytes.fromhex("08000000 12345600")
    assert vxlan.parse(bytes.fromhex("f7000000 12345600")) is None
    assert vxlan.parse(bytes.fromhex("ffffffff 123456ff")) == (Header(0x123456), 8)


def test_a_protocol_that_is_not_over_udp_fits() -> None:
    for tun_id in _ids(GRE):
        data = GRE.build(Header(tun_id))
        assert GRE.parse(data + b"inside") == (Header(tun_id), len(data))
    assert GRE.port == 0
    assert UdpPorts(lambda: (), lambda _ports: None).knows(GRE, 0)


def test_a_protocol_that_the_program_has_not_is_refused_by_name() -> None:
    encap = _encap("l2tp", 1)
    assert encap.tp_dst == 0
    assert unsupported(Match(), [encap]) == "l2tp tunnels are not supported"


def test_only_gre_goes_without_an_id_and_only_geneve_with_options() -> None:
    bare = replace(_encap("gre", 0), keyed=False)
    assert unsupported(Match(), [bare]) is None
    assert unsupported(Match(), [replace(bare, protocol="geneve")]) is not None
    assert unsupported(Match(), [replace(bare, tun_id=1)]) is not None
    option = bytes.fromhex("01028001 00010002")
    assert unsupported(Match(), [replace(_encap("geneve", 1), options=option)]) is None
    reason = unsupported(Match(), [replace(_encap("geneve", 1), options=option * 2)])
    assert reason == "16 octets of options in geneve are not supported"
    assert unsupported(Match(), [replace(_encap("gre", 1), options=option)]) is not None


def test_the_options_of_geneve_are_behind_its_header() -> None:
    option = bytes.fromhex("01028001 00010002")
    header = GENEVE.build(Header(0x123456, option))
    assert header == bytes.fromhex("02006558 12345600") + option
    assert GENEVE.parse(header + b"inside") == (Header(0x123456, option), 16)
    assert GENEVE.parse(bytes.fromhex("00806558 12345600")) is None, "a control packet"
    assert GENEVE.parse(bytes.fromhex("00000800 12345600")) is None, "no frame inside"
