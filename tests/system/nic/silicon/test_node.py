# SPDX-License-Identifier: Apache-2.0
"""The program as a node's software datapath: stages, upcalls, internal ports, the network stack behind it."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from asap2.nic.layer_actions import PopEthernet, PushEthernet
from asap2.nic.rules import (
    BARE,
    OVS_TABLE,
    VLAN_PRESENT,
    Action,
    Drop,
    Goto,
    Masked,
    Match,
    Output,
    Pass,
    PopVlan,
    PushVlan,
    Rule,
    Truncate,
    Upcall,
)
from asap2.nic.silicon.abi import UPCALL_SLOTS
from asap2.nic.silicon.events import LookupStats, UpcallContext, UpcallKind
from asap2.nic.silicon.pipeline import Deliver, Miss, Pipeline, Port, PortKind
from asap2.nic.silicon.upcall_accounts import UpcallCounts
from tests.system.nic.silicon.conftest import MAC, REP1, VF1, Nic
from tests.system.nic.silicon.network import Namespace, Tap, ethernet, eventually, veth
from tests.system.nic.silicon.packets import ipv4, tcp_is_right, tcp_with_pseudo_checksum, udp
from tests.system.patience import PATIENCE

A, B, HOST = (bytes.fromhex(f"0200000000{n:02x}") for n in (1, 2, 3))
BRIDGE_IP = "10.9.9.9"


class Node:
    """A node with the ports rep1, rep2 and the internal port br0; what is sent on their far ends comes in."""

    def __init__(self, pin_dir: Path) -> None:
        self.space, self.far = Namespace(), Namespace()
        for name in ("rep1", "rep2", "br0", "ovs-system"):
            veth(self.space, name, self.far, f"far-{name}", HOST if name == "br0" else None)
        offloads = ["ethtool", "-K", "ovs-system", "tx", "off", "tso", "off", "txvlan", "off"]
        self.space.run(lambda: subprocess.run(offloads, check=True, capture_output=True))
        self.space.links(lambda ipr: ipr.addr("add", index=self.index("br0"), address=BRIDGE_IP, prefixlen=24))
        self.pipeline = Pipeline.open(pin_dir, max_rules=1024, upcall_ifindex=self.index("ovs-system"))
        for name in ("rep1", "rep2", "br0"):
            self.set_port(name)
            self.pipeline.attach(self.index(name), self.space.fd, "egress" if name == "br0" else "ingress")
        self._taps: list[Tap] = []
        self.upcalls = self.tap("ovs-system", outgoing=True)

    def index(self, name: str) -> int:
        """A device's number, which is its port id too."""
        return self.space.ifindex(name)

    def set_port(
        self, name: str, *, tables: tuple[int, ...] = (0, OVS_TABLE), miss: Miss = Miss.UPCALL, mac: bytes = bytes(6)
    ) -> None:
        """(Re)set a port."""
        kind, deliver = PortKind.NODE, Deliver.EGRESS
        if name == "br0":
            kind, deliver = PortKind.INTERNAL, Deliver.INGRESS
        number = self.index(name)
        self.pipeline.set_port(Port(number, number, kind, mac, deliver, tables, miss))

    def add(self, name: str, *actions: Action, table: int = OVS_TABLE, match: Match | None = None) -> int:
        """A rule for what comes in by a port."""
        return self.pipeline.add(Rule(table, self.index(name), 0, match or Match(), actions))

    def out(self, name: str) -> Output:
        """The action that sends to a port."""
        return Output(self.index(name))

    def tap(self, name: str, *, outgoing: bool = False, mark: int = 0) -> Tap:
        """Raw access to a device of the node."""
        self._taps.append(Tap(self.space, name, outgoing=outgoing, mark=mark))
        return self._taps[-1]

    def far_tap(self, name: str) -> Tap:
        """Raw access to the far end of one."""
        self._taps.append(Tap(self.far, f"far-{name}"))
        return self._taps[-1]

    def take_upcall(self) -> UpcallContext:
        """A frame that has come for user space, taken into account: what is known of its packet."""
        self.upcalls.receive()
        context = self.pipeline.read_upcall(self.upcalls.mark)
        assert context is not None
        self.pipeline.upcalls.arrived(context)
        return context

    def lose(self, tap: Tap, *frames: bytes) -> None:
        """Send frames that user space should get while the device that they leave by is down."""
        self.space.links(lambda ipr: ipr.link("set", index=self.index("ovs-system"), state="down"))
        tap.send(*frames)
        self.space.links(lambda ipr: ipr.link("set", index=self.index("ovs-system"), state="up"))
        with pytest.raises(OSError, match="Network is down"):
            self.upcalls.receive()

    def counts(self, name: str) -> UpcallCounts:
        """What became of a port's upcalls."""
        return self.pipeline.upcalls.counts(self.index(name))

    def close(self) -> None:
        """Everything ends."""
        for tap in self._taps:
            tap.close()
        self.pipeline.destroy()
        self.space.close()
        self.far.close()


@pytest.fixture
def node(pin_dir: Path) -> Iterator[Node]:
    """A node whose ports have the stages TC and Open vSwitch."""
    made = Node(pin_dir)
    yield made
    made.close()


def test_a_miss_goes_to_user_space_with_what_is_known_of_it(node: Node) -> None:
    packet = ipv4("10.0.0.1", "10.0.0.2", 17, udp(1000, 2000, b"x" * 40))
    frame = ethernet(B, A, packet, 0x0800, ((0x8100, 57),))
    node.far_tap("rep1").send(frame)
    assert node.upcalls.receive() == frame
    context = node.pipeline.read_upcall(node.upcalls.mark)
    assert context is not None
    assert (context.kind, context.port, context.table) == (UpcallKind.MISS, node.index("rep1"), OVS_TABLE)
    assert context.length == len(frame) - 4
    assert context.fields["vlan_tci"] == VLAN_PRESENT | 57
    assert context.fields["ip_dst"] == int.from_bytes(socket.inet_aton("10.0.0.2"), "big")
    assert (context.fields["l4_src"], context.fields["l4_dst"]) == (1000, 2000)


def test_marks_of_others_are_no_upcalls(node: Node) -> None:
    assert node.pipeline.read_upcall(0) is None
    assert node.pipeline.read_upcall(0xA5B00000) is None
    assert node.pipeline.read_upcall(0xA5A00000 | 77) is None


def test_an_upcall_that_was_overtaken_is_not_taken_for_another(node: Node) -> None:
    rep1 = node.far_tap("rep1")
    rep1.send(ethernet(B, A))
    node.upcalls.receive()
    mark = node.upcalls.mark
    assert node.pipeline.read_upcall(mark) is not None
    for _ in range(UPCALL_SLOTS // 128):
        rep1.send(*[ethernet(B, A)] * 128)
        for _ in range(128):
            node.upcalls.receive()
    assert node.pipeline.read_upcall(mark) is None


def test_a_port_hands_over_no_more_than_its_share_and_takes_none_of_anothers(node: Node) -> None:
    node.pipeline.upcalls.limit = 3
    rep1, rep2 = node.far_tap("rep1"), node.far_tap("rep2")
    rep1.send(*[ethernet(B, A)] * 5)
    rep2.send(*[ethernet(A, B)] * 2)
    first = [node.take_upcall() for _ in range(5)]
    assert [context.port for context in first] == [node.index("rep1")] * 3 + [node.index("rep2")] * 2
    assert node.counts("rep1").lost == node.pipeline.lookups().lost == 2
    assert node.counts("rep2").lost == 0
    rep1.send(ethernet(B, A))
    assert node.counts("rep1").lost == 3
    node.pipeline.upcalls.done(first[0].port, first[0].units, True)
    rep1.send(*[ethernet(B, A)] * 2)
    assert node.take_upcall().at == first[2].at + 1
    assert node.counts("rep1") == UpcallCounts(delivered=1, lost=4)


def test_a_port_without_room_has_some_for_what_is_about_neighbours(node: Node) -> None:
    node.pipeline.upcalls.limit = 8
    rep1 = node.far_tap("rep1")
    asks = ethernet(B, A, bytes.fromhex("0001080006040001") + bytes(20), 0x0806)
    rep1.send(*[ethernet(B, A)] * 9, asks, asks)
    taken = [node.take_upcall() for _ in range(9)]
    assert [context.about_neighbours for context in taken] == [False] * 8 + [True]
    assert node.counts("rep1").lost == 2


def test_what_is_lost_between_program_and_receiver_is_counted(node: Node) -> None:
    rep1 = node.far_tap("rep1")
    rep1.send(ethernet(B, A))
    node.take_upcall()
    node.lose(rep1, *[ethernet(B, A)] * 2)
    assert node.counts("rep1").lost == 0
    rep1.send(ethernet(B, A))
    node.take_upcall()
    assert node.counts("rep1").lost == node.pipeline.lookups().lost == 2


def test_a_port_whose_packets_were_all_lost_is_not_shut_out_for_good(node: Node) -> None:
    node.pipeline.upcalls.limit = 2
    rep1 = node.far_tap("rep1")
    node.lose(rep1, *[ethernet(B, A)] * 2)

    def one_gets_through() -> bool:
        rep1.send(ethernet(B, A))
        return select.select([node.upcalls], [], [], 0.05)[0] != []

    assert eventually(one_gets_through)
    context = node.take_upcall()
    node.pipeline.upcalls.done(context.port, context.units, True)
    rep1.send(ethernet(B, A))
    node.take_upcall()
    refused = node.counts("rep1").lost - 2
    assert node.counts("rep1") == UpcallCounts(1, refused + 2)
    assert node.pipeline.drops()["upcall"] == refused


def test_a_super_packet_counts_by_its_size(node: Node) -> None:
    node.pipeline.upcalls.limit = 3
    rep1 = node.far_tap("rep1")
    segment = tcp_with_pseudo_checksum("10.0.0.1", "10.0.0.2", 1, 2, bytes(4200))
    frame = ethernet(B, A, ipv4("10.0.0.1", "10.0.0.2", 6, segment), 0x0800)
    rep1.send_super_packet(frame, 1400)
    assert [node.take_upcall().units for _ in range(3)] == [3, 3, 3]
    rep1.send(ethernet(B, A))
    assert node.counts("rep1").lost == 1


def test_a_new_receiver_counts_what_the_last_one_left_as_lost(node: Node) -> None:
    node.pipeline.upcalls.limit = 2
    rep1 = node.far_tap("rep1")
    rep1.send(*[ethernet(B, A)] * 2)
    for _ in range(2):
        node.take_upcall()
    again = Pipeline.open(node.pipeline.directory)
    again.upcalls.restart()
    assert again.upcalls.counts(node.index("rep1")).lost == 2
    rep1.send(ethernet(B, A))
    node.upcalls.receive()
    again.close()


def test_a_copy_for_user_space_leaves_the_packet_as_it_was(node: Node) -> None:
    node.add("rep1", Upcall(0x1234_5678_9ABC), node.out("rep2"))
    sent = node.tap("rep2", outgoing=True)
    frame = ethernet(B, A, b"both")
    node.far_tap("rep1").send(frame)
    assert node.upcalls.receive() == frame
    context = node.pipeline.read_upcall(node.upcalls.mark)
    assert context is not None
    assert (context.kind, context.cookie) == (UpcallKind.ACTION, 0x1234_5678_9ABC)
    assert sent.receive() == frame
    assert sent.mark == 0


def test_an_upcall_after_actions_sees_what_they_did(node: Node) -> None:
    node.add("rep1", PushVlan(9), Truncate(100), Upcall(1))
    node.far_tap("rep1").send(ethernet(B, A, b"z" * 200))
    assert node.upcalls.receive() == ethernet(B, A, b"z" * 200, tags=((0x8100, 9),))
    context = node.pipeline.read_upcall(node.upcalls.mark)
    assert context is not None
    assert context.fields["vlan_tci"] == VLAN_PRESENT | 9
    assert context.max_length == 100


def test_tc_comes_first_and_open_vswitch_gets_what_it_does_not_take(node: Node) -> None:
    tc = node.add("rep1", node.out("rep2"), table=0, match=Match(eth_dst=Masked(int.from_bytes(B, "big"), 2**48 - 1)))
    ovs = node.add("rep1", node.out("br0"))
    rep2, bridge, sender = node.far_tap("rep2"), node.tap("br0"), node.far_tap("rep1")
    first, second = ethernet(B, A, b"1"), ethernet(A, A, b"2")
    sender.send(first, second)
    assert rep2.receive() == first
    assert bridge.receive() == second
    assert [c.packets for c in node.pipeline.counters([tc, ovs])] == [1, 1]
    assert node.pipeline.lookups(ovs=True) == LookupStats(hit=1, masks=1, mask_hits=1)
    assert node.pipeline.lookups(ovs=False) == LookupStats(hit=1, missed=1, masks=1, mask_hits=2)


def test_pass_in_tc_leads_to_open_vswitch(node: Node) -> None:
    node.add("rep1", PopVlan(), Pass(), table=0)
    node.add("rep1", node.out("rep2"), match=Match(vlan_tci=Masked(0, 0xFFFF)))
    rep2 = node.far_tap("rep2")
    node.far_tap("rep1").send(ethernet(B, A, b"y" * 60, tags=((0x8100, 5),)))
    assert rep2.receive() == ethernet(B, A, b"y" * 60)


def test_what_tc_passes_and_open_vswitch_does_not_know_is_a_miss(node: Node) -> None:
    node.add("rep1", Pass(), table=0)
    frame = ethernet(B, A, b"passed")
    node.far_tap("rep1").send(frame)
    assert node.upcalls.receive() == frame
    context = node.pipeline.read_upcall(node.upcalls.mark)
    assert context is not None
    assert (context.kind, context.table) == (UpcallKind.MISS, OVS_TABLE)


def test_open_vswitch_goes_on_in_the_chain_where_tc_stopped(node: Node) -> None:
    node.add("rep1", Goto(5), table=0)
    node.add("rep1", Drop(), table=OVS_TABLE)
    node.add("rep1", node.out("rep2"), table=OVS_TABLE | 5)
    rep2 = node.far_tap("rep2")
    frame = ethernet(B, A, b"chain 5")
    node.far_tap("rep1").send(frame)
    assert rep2.receive() == frame


def test_a_miss_after_recirculation_names_the_recirculation(node: Node) -> None:
    node.add("rep1", Goto(OVS_TABLE | 33))
    node.far_tap("rep1").send(ethernet(B, A))
    node.upcalls.receive()
    context = node.pipeline.read_upcall(node.upcalls.mark)
    assert context is not None
    assert context.table == OVS_TABLE | 33


def test_what_the_host_sends_on_an_internal_port_is_seen_on_it_once_and_switched(node: Node) -> None:
    node.add("br0", PushVlan(57), node.out("rep1"))
    seen, sink, rep1 = node.tap("br0", outgoing=True), node.far_tap("br0"), node.far_tap("rep1")
    frame, last = ethernet(B, HOST, b"from the host" * 8), ethernet(A, HOST, b"last")
    sender = node.tap("br0", outgoing=True)
    sender.send(frame, last)
    assert rep1.receive() == ethernet(B, HOST, b"from the host" * 8, tags=((0x8100, 57),))
    assert seen.receive_all(last) == [frame]
    assert sink.receive_all(last) == [frame]


def test_what_goes_out_to_an_internal_port_the_host_receives(node: Node) -> None:
    node.add("rep1", node.out("br0"))
    server = node.space.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with server:
        server.bind((BRIDGE_IP, 7))
        server.settimeout(PATIENCE)
        packet = ipv4("10.9.9.1", BRIDGE_IP, 17, udp(1000, 7, b"to the host"))
        node.far_tap("rep1").send(ethernet(HOST, A, packet, 0x0800))
        assert server.recv(100) == b"to the host"


@pytest.mark.parametrize("how", ["rule", "miss", "no tables"])
def test_what_passes_reaches_the_network_stack(node: Node, how: str) -> None:
    node.set_port("rep1", miss=Miss.PASS, tables=() if how == "no tables" else (0,))
    if how == "rule":
        node.add("rep1", Pass(), table=0)
    node.space.links(lambda ipr: ipr.addr("add", index=node.index("rep1"), address="10.8.8.8", prefixlen=24))
    server = node.space.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with server:
        server.bind(("10.8.8.8", 7))
        server.settimeout(PATIENCE)
        packet = ipv4("10.8.8.1", "10.8.8.8", 17, udp(1000, 7, b"up"))
        node.far_tap("rep1").send(ethernet(node.space.mac("rep1"), A, packet, 0x0800))
        assert server.recv(100) == b"up"


def test_an_output_is_cut_short(node: Node) -> None:
    node.add("rep1", node.out("br0"), Truncate(70), node.out("rep2"))
    rep2, bridge = node.far_tap("rep2"), node.tap("br0")
    frame = ethernet(B, A, b"t" * 200)
    node.far_tap("rep1").send(frame)
    assert rep2.receive() == frame[:70]
    assert bridge.receive() == frame


def test_without_a_device_for_upcalls_they_are_counted_drops(node: Node) -> None:
    node.pipeline.set_upcall(0)
    node.add("rep1", node.out("rep2"), match=Match(eth_dst=Masked(int.from_bytes(A, "big"), 2**48 - 1)))
    rep2 = node.far_tap("rep2")
    last = ethernet(A, A)
    node.far_tap("rep1").send(ethernet(B, A), last)
    assert rep2.receive_all(last) == []
    assert node.pipeline.drops()["upcall"] == 1


def test_a_disabled_port_neither_takes_nor_gives(node: Node) -> None:
    node.add("rep1", node.out("rep2"))
    node.add("rep2", node.out("rep1"))
    number = node.index("rep1")
    node.pipeline.set_port(Port(number, number, PortKind.NODE, tables=(OVS_TABLE,), enabled=False))
    rep1, rep2 = node.far_tap("rep1"), node.far_tap("rep2")
    rep1.send(ethernet(B, A))
    rep2.send(ethernet(A, B))
    assert eventually(lambda: [node.pipeline.drops()[reason] for reason in ("in_port", "out_port")] == [1, 1])
    node.set_port("rep1")
    last = ethernet(B, A, b"last")
    rep1.send(last)
    assert rep2.receive_all(last) == []


def test_a_super_packet_is_counted_as_segments_and_reaches_user_space_segmented(node: Node) -> None:
    handle = node.add("rep1", Upcall(5))
    payload = bytes(range(256)) * 11
    segment = tcp_with_pseudo_checksum("10.0.0.1", "10.0.0.2", 1, 2, payload)
    frame = ethernet(B, A, ipv4("10.0.0.1", "10.0.0.2", 6, segment), 0x0800)
    vnet = struct.pack("=BBHHHH", 1, 1, 54, 1000, 34, 16)  # needs checksum; TCPv4; header; size; where the checksum is
    raw = node.far.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    with raw:
        raw.setsockopt(263, 15, 1)  # PACKET_VNET_HDR
        raw.bind(("far-rep1", 0))
        raw.send(vnet + frame)
    received, marks = [], set()
    for _ in range(3):
        received.append(node.upcalls.receive())
        marks.add(node.upcalls.mark)
    assert b"".join(f[54:] for f in received) == payload
    assert all(tcp_is_right(f[14:]) for f in received)
    context = node.pipeline.read_upcall(marks.pop())
    assert context is not None
    assert not marks
    assert context.length == len(frame)
    assert node.pipeline.counters([handle])[0].packets == 3


def test_a_packet_for_another_host_is_not_taken_for_ours_after_a_peer_redirect(nic: Nic, bpffs: Path) -> None:
    representor = nic.host.ifindex("rep1")
    node = Pipeline.open(bpffs / "behind-the-representor", max_rules=1024)
    try:
        node.set_port(Port(1, representor, PortKind.NODE, nic.host.mac("rep1"), miss=Miss.PASS, peer_any=True))
        node.attach(representor, nic.host.fd)
        given = nic.port(REP1)
        nic.pipeline.set_port(Port(REP1, given.ifindex, given.kind, deliver=Deliver.PEER, tables=(), peer_any=True))
        nic.host.links(lambda ipr: ipr.addr("add", index=representor, address="10.8.8.8", prefixlen=24))
        server = nic.host.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with server:
            server.bind(("10.8.8.8", 7))
            server.settimeout(PATIENCE)
            foreign, own = (
                ipv4("10.8.8.1", "10.8.8.8", 17, udp(1000, 7, text)) for text in (b"to another MAC", b"to its own")
            )
            nic.tap(VF1).send(
                ethernet(B, MAC[VF1], foreign, 0x0800), ethernet(nic.host.mac("rep1"), MAC[VF1], own, 0x0800)
            )
            assert server.recv(100) == b"to its own"
    finally:
        node.destroy()


TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000


@pytest.fixture
def bare(node: Node) -> Iterator[int]:
    """The device ``bare`` of a node, which has no Ethernet (a tun device): what is written there comes in."""
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("this kernel has no tun devices")
    fd = node.space.run(lambda: os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK))
    node.space.run(lambda: fcntl.ioctl(fd, TUNSETIFF, struct.pack("=16sH22x", b"bare", IFF_TUN | IFF_NO_PI)))
    index = node.index("bare")
    node.space.links(lambda ipr: ipr.link("set", index=index, state="up"))
    port = Port(index, index, PortKind.NODE, tables=(OVS_TABLE,), miss=Miss.UPCALL, bare=True)
    node.pipeline.set_port(port)
    node.pipeline.attach(index, node.space.fd, "ingress")
    yield fd
    os.close(fd)


def test_a_device_without_ethernet_takes_and_gives_what_begins_with_an_ip_header(node: Node, bare: int) -> None:
    rep2, packet = node.far_tap("rep2"), ipv4("10.0.0.1", "10.0.0.2", 17, udp(1000, 2000, b"x" * 40))
    os.write(bare, packet)
    assert node.upcalls.receive() == bytes(12) + b"\x08\0" + packet, "user space gets it behind room for a header"
    out = node.add("bare", PushEthernet(A, B), node.out("rep2"), table=OVS_TABLE | BARE)
    os.write(bare, packet)
    assert rep2.receive() == A + B + b"\x08\0" + packet
    assert node.pipeline.counters([out])[0].packets == 1

    handle = node.add("rep1", PopEthernet(), node.out("bare"))
    node.far_tap("rep1").send(ethernet(B, A, packet, 0x0800))
    assert _read(bare) == packet
    node.pipeline.replace(handle, (node.out("bare"), node.out("rep2")))
    node.far_tap("rep1").send(ethernet(B, A, packet, 0x0800))
    assert rep2.receive() == ethernet(B, A, packet, 0x0800)
    assert node.pipeline.drops()["action"] == 1, "it takes no frame"


def _read(fd: int) -> bytes:
    ready, _, _ = select.select([fd], [], [], 20)
    assert ready
    return os.read(fd, 2048)
