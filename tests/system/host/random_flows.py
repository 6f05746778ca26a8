# SPDX-License-Identifier: Apache-2.0
"""Random datapath flows in the syntax of ``ovs-appctl dpctl/add-flow``: any matches with any masks, any actions."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

DEVICES = ("2", "3", "4")
"""The uplink and two representors."""
OTHERS = ("1", "5")
"""The bridge's own interface, and a veth."""
TUNNEL = "6"
MAC = "02:00:00:00:{:02x}:{:02x}"
ENCAP = "tunnel({}src=192.0.2.1,dst=192.0.2.9,ttl=64,tp_dst=4789{},flags({}key))"


@dataclass(frozen=True)
class RandomFlow:
    """A flow to put in: its id, what it matches, what it does."""

    ufid: str
    key: str
    actions: str

    @property
    def text(self) -> str:
        """The flow as ``asap2 host explain`` takes it."""
        return f"ufid:{self.ufid},{self.key}, actions:{self.actions}"


def flow(seed: int) -> RandomFlow:
    """The flow of *seed*; no two of them match the same."""
    random = Random(seed)
    made = _Key(random, seed)
    key = made.key()
    return RandomFlow(f"f0220000-0000-0000-0000-{seed:012x}", key, _actions(random, made))


class _Key:
    """What a flow matches, as it is made up."""

    def __init__(self, random: Random, seed: int) -> None:
        self.random, self.seed = random, seed
        self.port = random.choice([*DEVICES * 4, *OTHERS, TUNNEL])
        self.protocol = 0
        self.ip = ""

    def rarely(self, one_in: int = 12) -> bool:
        return self.random.randrange(one_in) == 0

    def masked(self, value: int, width: int, form: str = "{:#x}") -> str:
        """A value with a whole mask, none, or any."""
        kind = self.random.randrange(6)
        full = (1 << width) - 1
        value &= full
        if kind < 3:
            return form.format(value)
        mask = 0 if kind < 5 else self.random.getrandbits(width)
        return f"{form.format(value & mask)}/{form.format(mask)}"

    def number(self, width: int) -> str:
        return self.masked(self.random.getrandbits(width), width)

    def small(self, width: int) -> str:
        return self.masked(self.random.getrandbits(width), width, "{}")

    def address(self, last: int) -> str:
        if self.ip == "ipv6":
            return self.random.choice([f"2001:db8::{last:x}", "::/::", f"2001:db8::{last:x}", "2001:db8::/ffff:ffff::"])
        return self.random.choice([f"10.0.0.{last}", "0.0.0.0/0.0.0.0", f"10.0.0.{last}", "10.0.0.0/255.255.255.0"])

    def key(self) -> str:
        parts = [f"recirc_id({self.random.choice([1, 7]) if self.rarely() else 0})"]
        for name, width in (("skb_priority", 32), ("skb_mark", 32), ("dp_hash", 32), ("ct_zone", 16), ("ct_mark", 32)):
            if self.rarely(40):
                parts.append(f"{name}({self.number(width)})")
        if self.rarely(25):
            states = self.random.sample(["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"], 2)
            parts.append("ct_state({})".format("".join(self.random.choice("+-") + one for one in states)))
        if self.rarely(60):
            parts.append(f"ct_label({self.number(128)})")
        if self.rarely(60):
            parts.append("ct_tuple4(src=10.0.0.1,dst=10.0.0.2,proto=17,tp_src=1,tp_dst=2)")
        if self.port == TUNNEL:
            parts.append(self.tunnel())
        parts.append(f"in_port({self.port})")
        low = MAC.format(self.seed >> 8 & 0xFF, self.seed & 0xFF)
        high = f"02:00:00:{self.seed >> 24 & 0xFF:02x}:{self.seed >> 16 & 0xFF:02x}:01"
        parts.append(f"eth(src={high},dst={low})")
        return ",".join(parts) + self.network(0)

    def tunnel(self) -> str:
        flags = self.random.choice(["", "", "-df", "+csum", "-df+csum", "+oam"])
        more = self.random.choice(
            ["", "", f",tp_src={self.number(16)}", f",tos={self.number(8)}", ",vxlan(gbp(id=3,flags=0))"]
        )
        return (
            f"tunnel(tun_id={self.number(24)},src=192.0.2.9,dst=192.0.2.1,ttl={self.small(8)}{more},flags({flags}+key))"
        )

    def network(self, tags: int) -> str:
        kind = self.random.randrange(24)
        if kind < 3 and tags < 2:
            vid = self.random.randrange(4095)
            tci = self.random.choice([f"vid={self.small(12)},pcp={self.small(3)}", f"vid={vid},pcp=0/0", "vid=7,pcp=3"])
            tag = self.random.choice(["0x8100"] * 3 + ["0x88a8"])
            return f",eth_type({tag}),vlan({tci}),encap({self.network(tags + 1)[1:]})"
        if kind < 14:
            self.ip = "ipv4"
        elif kind < 19:
            self.ip = "ipv6"
        elif kind == 19:
            fields = f"sip={self.address(1)},tip={self.address(2)},op={self.random.choice(['1', '2', '0/0'])}"
            hard = self.random.choice(["02:00:00:00:00:05", "00:00:00:00:00:00/00:00:00:00:00:00"])
            return f",eth_type({self.random.choice(['0x0806'] * 3 + ['0x8035'])}),arp({fields},sha={hard},tha={hard})"
        elif kind == 20:
            depth = self.random.choice([1, 1, 2])
            labels = [f"label={self.small(20)},tc={self.small(3)},ttl={self.small(8)},bos=" for _ in range(depth)]
            return f",eth_type(0x8847),mpls({'0,'.join(labels)}1)"
        elif kind == 21:
            return "" if self.rarely(3) else ",eth_type(0x88cc)"
        elif kind == 22:
            return ",eth_type(0x894f),nsh(flags=0,mdtype=1,np=3,spi=0x1,si=1,c1=0x0,c2=0x0,c3=0x0,c4=0x0)"
        else:
            return f",eth_type({self.random.randrange(0x9000, 0xFFFF):#x})"
        return self.transport()

    def transport(self) -> str:
        icmp = 58 if self.ip == "ipv6" else 1
        self.protocol = self.random.choice([6, 6, 17, 17, icmp, 132, 2, 47, 0])
        frag = self.random.choice(["no"] * 8 + ["first", "later"])
        rest = f"proto={self.protocol if self.protocol else '0/0'},"
        if self.ip == "ipv4":
            rest += f"tos={self.number(8)},ttl={self.small(8)},frag={frag}"
            made = f",eth_type(0x0800),ipv4(src={self.address(1)},dst={self.address(2)},{rest})"
        else:
            label = self.number(20) if self.rarely(6) else "0/0"
            rest += f"tclass={self.number(8)},hlimit={self.small(8)},frag={frag}"
            made = f",eth_type(0x86dd),ipv6(src={self.address(1)},dst={self.address(2)},label={label},{rest})"
        if frag == "later":
            return made
        name = {6: "tcp", 17: "udp", 132: "sctp"}.get(self.protocol)
        if name:
            made += f",{name}(src={self.small(16)},dst={self.small(16)})"
            made += (
                f",tcp_flags({self.random.choice(['0/0', '+syn-ack', '0x10/0xfff', '-fin'])})" if name == "tcp" else ""
            )
        elif self.protocol == icmp:
            kind = self.random.choice([8, 135, 136] if icmp == 58 else [8, 0])
            made += f",icmp{'v6' if icmp == 58 else ''}(type={kind},code=0)"
            if kind in (135, 136):
                link = self.random.choice(["02:00:00:00:00:05", "00:00:00:00:00:00/00:00:00:00:00:00"])
                which = "sll" if kind == 135 else "tll"
                made += f",nd(target={self.random.choice(['2001:db8::7', '::/::'])},{which}={link})"
        return made


def _actions(random: Random, key: _Key) -> str:
    made: list[str] = []
    for _ in range(random.choice([0, 1, 1, 1, 2, 2, 3, 4, 18])):
        made += _action(random, key)
    end = random.choice(["output", "output", "output", "output", "none", "recirc"])
    if end == "output":
        made += _output(random)
    elif end == "recirc":
        made.append(f"recirc({random.choice([1, 5])})")
    return ",".join(made) or "drop"


def _output(random: Random) -> list[str]:
    port = random.choice([*DEVICES * 5, *OTHERS, TUNNEL])
    if port != TUNNEL:
        return [port]
    options = random.choice(["", "", "", ",vxlan(gbp(id=1,flags=0))", ",geneve({class=0x102,type=0x80,len=4,0x1})"])
    tunnel = "tun_id=0x1," if random.randrange(5) else ""
    return [f"set({ENCAP.format(tunnel, options, random.choice(['', 'df|', 'csum|']))})", TUNNEL]


def _action(random: Random, key: _Key) -> list[str]:
    kind = random.randrange(30)
    if kind < 7:
        return _output(random)
    if kind < 10:
        tpid = random.choice(["", "", "tpid=0x88a8,"])
        return [f"push_vlan({tpid}vid={random.randrange(4095)},pcp={random.choice([0, 0, 5])})"]
    if kind < 12:
        return ["pop_vlan"]
    if kind < 19:
        return [f"set({_set(random, key)})"]
    return [random.choice(RARE)]


RARE = (
    "userspace(pid=77,userdata(0102))",
    "userspace(pid=77,slow_path(cfm))",
    "userspace(pid=77,controller(reason=1,dont_send=0,continuation=0,recirc_id=1,rule_cookie=0,controller_id=0,max_len=65535))",
    "userspace(pid=77,sFlow(vid=9,pcp=7,output=10))",
    "userspace(pid=77,flow_sample(probability=1,collector_set_id=1,obs_domain_id=1,obs_point_id=1,output_port=4294967295))",
    "sample(sample=50.0%,actions(3))",
    "trunc(100)",
    "clone(4)",
    "ct(zone=5)",
    "ct(commit,zone=5,mark=0x1/0xff,label=0x2/0xf)",
    "ct(commit,nat(src=10.0.0.5-10.0.0.9:1000-2000))",
    "ct(commit,helper=ftp)",
    "ct(force_commit,nat)",
    "ct_clear",
    "meter(1)",
    "check_pkt_len(size=200,gt(4),le(3))",
    "check_pkt_len(size=200,gt(trunc(100),4),le(3))",
    "check_pkt_len(size=200,gt(drop),le(set(eth(dst=02:00:00:00:00:09)),3))",
    "push_mpls(label=100,tc=0,ttl=64,bos=1,eth_type=0x8847)",
    "pop_mpls(eth_type=0x800)",
    "push_eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02,type=2048)",
    "pop_eth",
    "push_nsh(flags=0,ttl=63,mdtype=1,np=3,spi=0x1,si=1,c1=0x0,c2=0x0,c3=0x0,c4=0x0)",
    "pop_nsh()",
    "add_mpls(label=100,tc=0,ttl=64,bos=1,eth_type=0x8847)",
    "lb_output(3)",
    "drop",
    "recirc(5)",
)


def _set(random: Random, key: _Key) -> str:
    protocol = {6: "tcp", 17: "udp", 132: "sctp"}.get(key.protocol, "udp")
    v4, v6 = ("ipv4", "ipv6") if random.randrange(12) else ("ipv6", "ipv4")
    ip = v6 if key.ip == "ipv6" else v4
    address = "2001:db8::9" if ip == "ipv6" else "10.0.0.9"
    fields = [
        "eth(src=02:00:00:00:00:08,dst=02:00:00:00:00:09)",
        "eth(dst=02:00:00:00:00:09/ff:ff:ff:00:00:00)",
        f"{ip}(src={address})",
        f"{ip}(dst={address})",
        f"{ip}({'hlimit' if ip == 'ipv6' else 'ttl'}=9)",
        f"{ip}({'tclass=0x4' if ip == 'ipv6' else 'tos=0x4'}/0xfc)",
        f"{protocol}(src=1000)",
        f"{protocol}(src=1000,dst=2000)",
        "skb_mark(0x5)",
        "skb_priority(0x5)",
        "mpls(label=5,tc=0,ttl=3,bos=1)",
        "ipv6(label=0x5/0xfffff)",
        "nsh(ttl=5)",
        "arp(sip=10.0.0.9)",
        "icmp(type=3)",
        "tcp_flags(0x2)",
    ]
    return random.choice(fields[:8] * 4 + fields[8:])
