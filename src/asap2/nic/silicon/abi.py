# SPDX-License-Identifier: Apache-2.0
"""Numbers that the eBPF program and user space agree on: limits, marks, flags, operations.

:mod:`asap2.nic.silicon.generate` writes them into ``generated.h``, so that none stands on both sides by hand. The
structures of shared memory are in :mod:`asap2.nic.silicon.maps`.
"""

from __future__ import annotations

import enum
from typing import Final

from asap2.nic.tunnels import options

# ---- limits

TABLES: Final = 4
"""Tables of one port, tried in turn."""
STAGES: Final = 8
"""Room for a port's tables, a power of two: before them may be :data:`LIMITS`."""
METERS: Final = 16384
"""Meters of a pipeline, with number 0, which is none."""
LOOKUPS: Final = 17
"""Lookups that one packet may have, in all stages together; of a copy, those before it count, and
:data:`COPY_LOOKUPS` more. Linux classifies a packet
17 times before it takes the chains for a loop (max_reclassify_loop of net/sched/cls_api.c)."""
TRACED_LOOKUPS: Final = 8
"""So many of a packet that is traced: chains that put it into one tunnel after another would make it longer than the
kernel takes."""
COPY_LOOKUPS: Final = 4
"""What a copy counts as: a rule that copies each packet to itself must not make thousands of one."""
MASKS: Final = 65536
"""Masks in one list: as many as TC has priorities."""
ACTIONS: Final = 512
"""Actions of one rule."""
L3_WINDOW: Final = 192
"""The eSwitch looks at so many bytes from the network header on. A header that ends beyond them is not there."""
EXTENSIONS: Final = 8
"""IPv6 extension headers that are skipped. The number of the next one is the protocol, and its fields are 0."""
MPLS_LABELS: Final = 3
"""Label stack entries that rules match on."""
COPIES: Final = 6
"""So many copies of copies of one packet there can be: the kernel transmits no deeper than 8."""
NEAR: Final = 4096
"""Places of the table of devices by the low bits of their numbers, a power of two."""
OUTER_MAX: Final = 96
"""Bytes of outer headers, and the inner Ethernet header with a tag."""
TUNNEL_PORTS: Final = 8
"""UDP ports that VXLAN may come to besides :data:`asap2.nic.tunnels.vxlan.PORT`."""
OPTIONS_MAX: Final = 256
"""Octets of options in a tunnel's header, and one more (IP_TUNNEL_OPTS_MAX)."""
SET_OPTIONS_MAX: Final = 48
"""Octets of options that an action can give to the kernel's tunnel device."""
OPTION_KINDS: Final = options.MOST
"""Options in tunnels that rules of a pipeline match on, at most."""
RESUMES: Final = 65535
"""Places where a node can go on with a packet of its NIC's."""
ONWARD: Final = 65535
"""In place of the number of such a place: the program that runs at the device of upcalls calls the other one."""
LAST_STAGE: Final = 254
"""Behind all tables of a port: where a lookup finds nothing there, the port's miss decides."""
DROP_REASONS: Final = 16
"""Room for counters of :class:`asap2.nic.silicon.events.DropReason`."""
TRACE_BYTES: Final = 4096
"""Bytes of a packet that a trace keeps."""
TEST_SLOT: Final = 0
"""The slot of tunnels that no rule has: for metadata of a packet that is traced."""

SAMPLE_COOKIE: Final = 16
"""Octets of a sample's cookie (OVS_PSAMPLE_COOKIE_MAX_SIZE)."""
IN_PORT: Final = 0xFFFF_FFFF
"""Of a sample, instead of a device: the port that the packet came in by."""
SAMPLE_BYTES: Final = 65535
"""Octets of a packet that a sample holds at most (PSAMPLE_MAX_PACKET_SIZE)."""

# ---- connection tracking

POLICIES: Final = 256
"""Timeout policies: the first :data:`OWN_POLICIES` are the protocols' own (:class:`Policy`)."""
OWN_POLICIES: Final = 16
POLICY_TIMEOUTS: Final = 16
"""Timeouts of one policy, a power of two."""
POLICY_NAME: Final = 32
"""Octets of a policy's name with its NUL (CTNL_TIMEOUT_NAME_MAX)."""
LOCKS: Final = 1024
"""Locks that connections share, a power of two."""
KEEP_MOST: Final = 64
"""Connections that user space has forgotten at once, a power of two."""
HARDWARE_IDLE: Final = 30
"""Seconds without a packet after which a connection is no longer hardware's (nf_flowtable_*_timeout)."""


class CtEvent(enum.IntFlag):
    """What has happened to a connection (1 << IPCT_*, enum ip_conntrack_events)."""

    NEW = 1 << 0
    RELATED = 1 << 1
    DESTROY = 1 << 2
    REPLY = 1 << 3
    ASSURED = 1 << 4
    PROTOINFO = 1 << 5
    HELPER = 1 << 6
    MARK = 1 << 7
    SEQADJ = 1 << 8
    SECMARK = 1 << 9
    LABEL = 1 << 10
    SYNPROXY = 1 << 11


class Keep(enum.IntEnum):
    """What user space has done to connections (keep.h)."""

    FORGET = 0
    EXPIRE = 1
    """Forget those whose time is over."""
    RECLAIM = 2
    """Have back those that hardware has not used for :data:`HARDWARE_IDLE`."""
    STATUS = 3
    """Set bits of the status."""
    INSERT = 4


class Policy(enum.IntEnum):
    """The timeout policy of each protocol; its timeouts are numbered by state."""

    TCP = 1
    UDP = 2
    ICMP = 3
    ICMPV6 = 4
    SCTP = 5
    GRE = 6
    GENERIC = 7
    UDPLITE = 8


class CtFlag(enum.IntFlag):
    """What an action of connection tracking is to do (``struct tracking``)."""

    COMMIT = 1 << 0
    FORCE = 1 << 1
    NAT = 1 << 2
    NAT_SRC = 1 << 3
    NAT_DST = 1 << 4
    NAT_ADDRESSES = 1 << 5
    NAT_PORTS = 1 << 6
    NAT_PERSISTENT = 1 << 7
    NAT_HASH = 1 << 8
    NAT_RANDOM = 1 << 9
    OFFLOAD = 1 << 10
    EVENT_MASK = 1 << 11
    MARK = 1 << 12
    LABELS = 1 << 13
    INSIDE = 1 << 14


class SampleFlag(enum.IntFlag):
    """What an action that samples packets is to do, or to tell (``struct sampling``)."""

    PROBABILITY = 1 << 0
    """The rate is a probability."""
    COUNTED = 1 << 1
    CUT = 1 << 2
    """No more octets than the length are to be told."""
    TUNNEL_IPV4 = 1 << 3
    TUNNEL_IPV6 = 1 << 4
    """The action itself names the tunnel."""


# ---- user space's packets

UPCALL_SLOTS: Final = 8192
"""Packets that can be on their way to user space; a power of two."""
UPCALL_UNIT: Final = 2048
"""Bytes that a port's share of them is counted in."""
UPCALL_MAGIC: Final = 0xA5A0_0000
"""Upper 12 bits of the mark of a packet for user space; below them its number."""
UPCALL_MAGIC_MASK: Final = 0xFFF0_0000
SELF_MARK: Final = 0xA5B0_0000
"""Mark of the copy that an internal port transmits for its taps and counters."""
CONTINUE_MARK: Final = 0xA5C0_0000
"""Mark of a packet that user space hands in (:class:`asap2.nic.silicon.maps.ContinuationRecord`)."""

CARRIED_MAGIC: Final = 0xC7A0
"""Upper 12 bits, of 16, of what a NIC tells of the connection of a packet that no rule was for. The others say how it
is translated: bits of ``ct_state``, divided by 16. The zone follows."""

# ---- bits

TUNNEL_LIST: Final = 0x2000_0000
"""Bit of a table: the list of its rules that match on a tunnel."""
LIMITS: Final = 0x1000_0000
"""The table that packets of a port meet before the port's own, once it has a rule for them: limits of all that comes in
by a port. What its rules pass on goes on as a packet that has just come in."""
DELIVER: Final = 0xFFFF_FFFF
"""Instead of a table, of a place to go on at: the packet goes to the port."""

PORT_ENABLED: Final = 1
PORT_INTERNAL: Final = 2
PORT_PEER: Final = 4
PORT_PEER_ANY: Final = 8
PORT_INGRESS: Final = 16
PORT_KNOWN: Final = 32
"""User space's: the slot is taken."""
PORT_WIRE: Final = 64
"""Tunnels are looked into."""
PORT_METADATA: Final = 128
"""A tunnel device of the kernel's: packets carry tunnel metadata."""
PORT_RESUME: Final = 256
"""A NIC's: packets that the NIC gave up on say where to go on."""
PORT_BEHIND: Final = 512
"""Behind the device: what goes out to it is told so by ``tell``."""
PORT_ARRIVED: Final = 1024
"""TC's rules count bytes as they came in by the device."""
PORT_BARE: Final = 2048
"""The device has no Ethernet: its packets begin with their network header."""
PORT_VEILED: Final = 4096
"""It has Ethernet headers all the same, which mean nothing."""

METER_ON: Final = 1
METER_PACKETS: Final = 2
"""It limits packets, not octets."""
METER_CELLS: Final = 4
"""Octets count as those of the cells of ATM that carry them."""

EVENT_MATCH, EVENT_SEND, EVENT_UPCALL, EVENT_PASS, EVENT_DROP, EVENT_SAMPLE = range(6)
EVENT_ENTER, EVENT_ONWARD, EVENT_NO_MATCH, EVENT_TRACK, EVENT_LEAVE = range(6, 11)
"""Only of the build that tells of each step (watch.h): a packet came in by a port; a copy of one, or a packet that user
space hands in, goes on; no rule of a table is for it; its connection was looked for; a NIC leaves it to the node."""

WATCH_SHORT: Final = 192
WATCH_USUAL: Final = 2048
WATCH_BYTES: Final = 65535
"""Octets of a packet that a record of that build has room for: one of three sizes."""


class Op:
    """What one entry of an action list does (``enum op``): the low octet of its ``op``."""

    END, OUTPUT, PUSH_VLAN, POP_VLAN, MODIFY_VLAN, DROP, GOTO, UPCALL, PASS, TRUNCATE, SET, ENCAP, DECAP = range(13)
    SET_TUNNEL, ENTER, CLONE, SAMPLE, CHECK_LENGTH, DEC_TTL, HASH, SET_META, PUSH_MPLS, POP_MPLS = range(13, 23)
    PUSH_ETHERNET, POP_ETHERNET, PUSH_NSH, POP_NSH, ADD, CT, CT_CLEAR, CT_HARDWARE, METER, PSAMPLE = range(23, 33)
    LOOK_ON, CHANCE, SWAP_ETHERNET, SET_ETHERTYPE, CONGEST = range(33, 38)


HASH_FACTORS: Final = (
    *(0x87C37B91114253D5, 0x4CF5AD432745937F, 0x9DDFEA08EB382D69, 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53),
    *(0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB),
    *(0x8EBC6AF09C88C6E3, 0x589965CC75374CC3, 0xC6A4A7935BD1E995, 0xC2B2AE3D27D4EB4F),
    *(0x9FB21C651E98DF25, 0xD1B54A32D192ED03, 0xAEF17502108EF2D9, 0xF1357AEA2E62A9C5, 0xDB4F0B9175AE2165),
    *(0xBBE0563303A4615F, 0xA24BAED4963EE407, 0xD6D0E7F7A5C4B1A3, 0xC6BC279692B5C323, 0xE19B01AA9D42C633),
)
"""Odd random numbers, one for each 64-bit word of a packed key: the hash of a key is a sum of products."""
HASH_SEED: Final = 0x1D8E4E27C47D124F
"""The factor of what a hash begins with."""
HASH_MIX: Final = 0x9E3779B97F4A7C15
"""The factor of the sum."""
