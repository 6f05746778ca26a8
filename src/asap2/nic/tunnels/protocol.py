# SPDX-License-Identifier: Apache-2.0
"""What a tunnel protocol is to the NIC: its header, its devices in the kernel, and what mlx5 says of it.

A protocol is one module with one frozen :class:`TunnelProtocol`, and a place in
:data:`asap2.nic.tunnels.PROTOCOLS`. What the eBPF program does with packets in tunnels is written by hand on both
sides (``tunnel.h``, :mod:`asap2.nic.silicon.tunnel`), so that one checks the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Udp:
    """The tunnel's header follows a UDP header."""

    port: int
    """The destination port that IANA gave to the protocol."""
    unknown_port: str | None = None
    """mlx5's refusal to put packets in a tunnel to a port that the NIC does not know; None: it puts them in any."""
    ethtool_type: int | None = None
    """ETHTOOL_UDP_TUNNEL_TYPE_*, where mlx5 has a table of ports that the node's devices fill
    (:mod:`asap2.nic.underlay.udp_ports`). None: the NIC knows :attr:`port` alone."""


@dataclass(frozen=True, slots=True)
class Ip:
    """The tunnel's header follows the IP header, as GRE's does (protocol 47)."""

    protocol: int
    """The number of the protocol in the IP header (IPPROTO_*)."""


@dataclass(frozen=True, slots=True)
class LinkKind:
    """A kind of tunnel device in the kernel, and where a link's IFLA_INFO_DATA has what the driver asks of it."""

    name: str
    """IFLA_INFO_KIND."""
    lower: int | None
    """The attribute that has the ifindex which packets must leave by (IFLA_VXLAN_LINK); None: it has none."""
    port: int | None
    """The attribute that has the UDP destination port (IFLA_VXLAN_PORT); None: the tunnel has no ports."""


@dataclass(frozen=True, slots=True)
class TunnelId:
    """The number in the header that keeps virtual networks apart."""

    name: str
    """What the protocol's own words for it are, as ``VXLAN network identifier``."""
    bits: int
    optional: bool = False
    """Whether a header may be without (GRE's key)."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a header may carry behind its fixed part."""

    tc: str
    """The attribute of TC's ``enc_opts``, in tunnel_key and flower alike (:data:`asap2.netlink.tables.actions`)."""
    ovs: str
    """The attribute of an Open vSwitch tunnel key (:data:`asap2.netlink.tables.ovs`)."""
    octets: int
    """Octets of options that a NIC can put on and match at most."""


class Header(NamedTuple):
    """A tunnel's header: its id (None: it has none), and its options as they are on the wire."""

    tun_id: int | None
    options: bytes = b""


@dataclass(frozen=True, slots=True)
class TunnelProtocol:
    """One tunnel protocol."""

    name: str
    """As in :class:`asap2.nic.rules.Encap` and in a model's set of tunnels."""
    number: int
    """Its number in the silicon's memory, 0 to 255: never another protocol's."""
    over: Udp | Ip
    links: tuple[LinkKind, ...]
    id: TunnelId
    build: Callable[[Header], bytes]
    """The octets of a header, which what is inside follows."""
    parse: Callable[[bytes], tuple[Header, int] | None]
    """The header that octets begin with, and its length; None where they begin with none that a NIC looks into."""
    vport_type: int
    """OVS_VPORT_TYPE_*: the kind of a port of Open vSwitch's datapath that is such a tunnel."""
    options: Options | None = None
    """None: a NIC takes no options."""

    @property
    def port(self) -> int:
        """The UDP port that it has by default; 0: it has none."""
        return self.over.port if isinstance(self.over, Udp) else 0
