# SPDX-License-Identifier: Apache-2.0
"""A NIC and its functions, as the driver keeps them.

Every kind of function is a :class:`Function`; what is asked of all of them (PCI address, netdev, far ends, ports of the
pipeline, vport number) is asked there. What only one kind has is in its subclass. The netdevs and the far ends are
described in :mod:`asap2.nic.veth`.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from asap2.nic.ethertypes import ETH_P_8021Q
from asap2.nic.lag import Lag
from asap2.nic.model import PF_VECTORS, VF_VECTORS, Model, model
from asap2.nic.port_ids import bonded_port, pf_port, representor_port, vf_port, wire_port

ZERO_MAC = bytes(6)

VPORT_UPLINK = 0xFFFF
"""MLX5_VPORT_UPLINK."""


class EswitchMode(enum.Enum):
    """DEVLINK_ATTR_ESWITCH_MODE (include/uapi/linux/devlink.h)."""

    LEGACY = 0
    SWITCHDEV = 1


class LinkState(enum.IntEnum):
    """IFLA_VF_LINK_STATE_* (include/uapi/linux/if_link.h)."""

    AUTO = 0
    ENABLE = 1
    DISABLE = 2


class Role(enum.Enum):
    """What a network device of the node is to the NIC or to Open vSwitch's datapath."""

    PF = "pf"
    """The physical function's own netdev: in switchdev mode the uplink representor."""
    VF = "vf"
    REPRESENTOR = "representor"
    INTERNAL = "internal"
    """An internal port of the Open vSwitch datapath."""
    OTHER = "other"


def factory_mac(place: str) -> bytes:
    """The MAC address of a NIC at *place*: Mellanox's prefix, then a hash of *place*, so it survives restarts."""
    return b"\xec\x0d\x9a" + hashlib.sha256(place.encode()).digest()[:2] + b"\x00"


class Function:
    """A function of a NIC, of any kind.

    A subclass sets these: ``bdf`` is the PCI address, ``pf`` the physical function whose eSwitch it is a vport of,
    ``netdev`` the name that its netdev gets, ``mac`` the address that it gets (all zero: the kernel chooses one),
    ``msix`` the number of MSI-X vectors, ``number`` mlx5's vhca_id, ``vport`` the vport number that devlink shows.
    ``far`` names the far end of its netdev, ``representor`` that of its representor (empty: it has none).

    ``port`` is its port in the pipeline, ``host_port`` the one by which the host receives what no rule of the eSwitch
    matches, ``switched_port`` the one whose packets rules on its representor match. A PF's netdev is itself the
    representor of the uplink, so those two are its own port and the wire's.
    """

    role: ClassVar[Role]
    """The role of its own netdev."""
    kept: ClassVar[tuple[str, ...]] = ("bound", "driver_override")
    """The attributes that :meth:`state` has."""

    pf: Pf
    bdf: str
    netdev: str
    device_id: int
    number: int
    vport: int
    far: str
    representor: str
    port: int
    host_port: int
    switched_port: int

    def __init__(self, nic: Nic, index: int, mac: bytes, msix: int) -> None:
        self.nic = nic
        self.index = index
        self.mac = mac
        self.msix = msix
        self.bound = False
        self.driver_override = ""

    def state(self) -> dict[str, Any]:
        """The attributes that outlive the daemon, as JSON-able data."""
        return {name: _plain(getattr(self, name)) for name in self.kept}

    def restore(self, state: dict[str, Any]) -> None:
        """Set what :meth:`state` has given."""
        for name in self.kept:
            setattr(self, name, _like(getattr(self, name), state[name]))


class Pf(Function):
    """A physical function and its eSwitch.

    ``wire`` names the far end of the cable. ``hw_tc_offload`` is the feature by role ("uplink", "rep0", "vf0"…), where
    a program has set it; ``settings`` has, by role, what ``ethtool`` has set otherwise than the driver
    (:mod:`asap2.nic.faces.ethtool.settings`). ``bonded_port`` is the wire while the NIC's ports are bonded: its own, or
    the other's.
    """

    role = Role.PF
    kept = (*Function.kept, "mode", "inline_mode", "encap", "autoprobe", "hw_tc_offload", "settings")

    def __init__(self, nic: Nic, index: int, mac: bytes) -> None:
        super().__init__(nic, index, mac, PF_VECTORS)
        domain_bus, _, slot = nic.pci.rpartition(":")
        device = slot.partition(".")[0]
        self.pf = self
        self.bdf = f"{domain_bus}:{device}.{index}"
        self.netdev = f"enp{int(domain_bus[5:], 16)}s{int(device, 16)}f{index}"
        self.device_id = nic.model.device_id
        self.number, self.vport = index, VPORT_UPLINK
        self.far, self.representor, self.wire = f"pf{index}", "", f"p{index}"
        self.port = self.host_port = pf_port(index)
        self.switched_port = wire_port(index)
        self.bonded_port = bonded_port(index)
        self.mode = EswitchMode.LEGACY
        self.inline_mode = 0
        self.encap = True
        self.autoprobe = True
        self.vfs: list[Vf] = []
        self.hw_tc_offload: dict[str, bool] = {}
        self.settings: dict[str, dict[str, int]] = {}

    @property
    def out_port(self) -> int:
        """The port of the pipeline by which its eSwitch sends to the wire."""
        return self.bonded_port if self.nic.bond else self.switched_port

    @property
    def switchdev(self) -> bool:
        """Whether the eSwitch is in switchdev mode."""
        return self.mode is EswitchMode.SWITCHDEV

    @property
    def vf_offset(self) -> int:
        """First VF's routing id less the PF's (PCI_SRIOV_VF_OFFSET)."""
        return 2 + self.index * self.nic.total_vfs - self.index

    def vf_bdf(self, index: int) -> str:
        """The PCI address of VF *index*: routing id = PF + offset + index × stride (PCIe SR-IOV, stride 1)."""
        devfn = (int(self.bdf[8:10], 16) << 3) + self.index + self.vf_offset + index
        bus = int(self.bdf[5:7], 16) + (devfn >> 8)
        return f"{self.bdf[:5]}{bus:02x}:{(devfn >> 3) & 0x1F:02x}.{devfn & 7}"

    def state(self) -> dict[str, Any]:
        return {**super().state(), "vfs": [vf.state() for vf in self.vfs]}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.vfs = [Vf(self, index) for index in range(len(state["vfs"]))]
        for vf, kept in zip(self.vfs, state["vfs"], strict=True):
            vf.restore(kept)


class Vf(Function):
    """A virtual function, with the attributes that ``ip link set PF vf N`` sets.

    ``mac`` is the administrator's; ``vlan`` 0-4095, ``qos`` 0-7, ``vlan_proto`` an ethertype, rates in Mbit/s, 0 for no
    limit. ``tx_share`` and ``tx_max`` are what devlink was told last, in octets a second.
    """

    role = Role.VF
    kept = (
        *Function.kept,
        *("mac", "msix", "vlan", "qos", "vlan_proto", "spoofchk", "trust", "link_state", "min_tx_rate", "max_tx_rate"),
        *("tx_share", "tx_max"),
    )

    def __init__(self, pf: Pf, index: int) -> None:
        super().__init__(pf.nic, index, ZERO_MAC, VF_VECTORS)
        self.pf = pf
        self.bdf = pf.vf_bdf(index)
        self.netdev = f"{pf.netdev}v{index}"
        self.device_id = pf.nic.model.vf_device_id
        self.number = len(pf.nic.pfs) + pf.index * pf.nic.total_vfs + index
        self.vport = index + 1
        self.far, self.representor = f"{pf.far}vf{index}", f"{pf.far}rep{index}"
        self.port = self.switched_port = vf_port(pf.index, index)
        self.host_port = representor_port(pf.index, index)
        self.vlan = self.qos = 0
        self.vlan_proto = ETH_P_8021Q
        self.spoofchk = self.trust = False
        self.link_state = LinkState.AUTO
        self.forget_rates()

    def forget_rates(self) -> None:
        """Have no limits."""
        self.min_tx_rate = self.max_tx_rate = 0
        self.tx_share = self.tx_max = 0


@dataclass(slots=True, eq=False)
class Nic:
    """An adapter: one to two physical functions of one model at a PCI address."""

    name: str
    model: Model
    pci: str
    total_vfs: int
    netns: str
    pfs: list[Pf] = field(default_factory=list)
    lag: Lag | None = None
    """How its ports are, or were, bonded; None: they never were."""

    @classmethod
    def configured(cls, config: dict[str, Any]) -> Nic:
        """From an entry of the daemon's configuration; ValueError says what is wrong with it."""
        kind = model(config["model"])
        kind = replace(kind, max_rules=config.get("rules", kind.max_rules))
        nic = cls(config["name"], kind, config["pci"], config["total_vfs"], config["netns"])
        domain_bus, _, slot = nic.pci.rpartition(":")
        if slot.partition(".")[2] != "0" or len(domain_bus) != 7:
            raise ValueError(f"pci {nic.pci!r} is not the address of a function 0, as 0000:03:00.0")
        if not 1 <= config["ports"] <= 2:
            raise ValueError(f"a NIC has 1 or 2 ports, not {config['ports']}")
        if not 0 <= nic.total_vfs <= nic.model.max_vfs:
            raise ValueError(f"a {nic.model.name} has at most {nic.model.max_vfs} VFs a port, not {nic.total_vfs}")
        mac = bytes.fromhex(config["mac"].replace(":", "")) if "mac" in config else factory_mac(nic.netns)
        nic.pfs += [Pf(nic, i, mac[:5] + bytes([(mac[5] + i) & 0xFF])) for i in range(config["ports"])]
        return nic

    def functions(self) -> Iterator[Function]:
        """Its functions in bus order: the PFs, then their VFs."""
        yield from self.pfs
        for pf in self.pfs:
            yield from pf.vfs

    @property
    def bond(self) -> int:
        """The ifindex of the bond by which its ports are one to all of its VFs (mlx5_lag_is_sriov); 0: they are not."""
        return self.lag.ifindex if self.lag is not None else 0

    @property
    def switch_id(self) -> str:
        """phys_switch_id, hexadecimal: the system image GUID, made from the first port's MAC, which all ports share."""
        mac = self.pfs[0].mac
        return (mac[:3] + b"\x03\x00" + mac[3:])[::-1].hex()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return value.value if isinstance(value, enum.Enum) else value


def _like(old: Any, value: Any) -> Any:
    """*value* as :func:`_plain` has given it, back as the type of *old*."""
    if isinstance(old, bytes):
        return bytes.fromhex(value)
    return type(old)(value) if isinstance(old, enum.Enum) else value
