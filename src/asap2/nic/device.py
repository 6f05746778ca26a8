# SPDX-License-Identifier: Apache-2.0
"""The driver's state machine: PCI functions, SR-IOV, the eSwitch's mode, representors and VF attributes.

It does what mlx5_core and the PCI core do, and no input or output of its own: what must happen to netdevs and to the
silicon goes through :class:`asap2.nic.backend.Backend`, errors are the kernel's errno values as :class:`OSError`
(sysfs, rtnetlink) or :class:`DriverError` (with the extended acknowledgement's text).

Sources: drivers/pci/iov.c, drivers/base/bus.c, drivers/net/ethernet/mellanox/mlx5/core/{sriov,eswitch,
eswitch_offloads}.c of Linux 6.x.
"""

from __future__ import annotations

import enum
import errno
import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from asap2.nic.backend import Backend
from asap2.nic.model import LEAST_VF_VECTORS, MOST_VF_VECTORS, VF_VECTORS, Model, model

ZERO_MAC = bytes(6)


class EswitchMode(enum.Enum):
    """DEVLINK_ATTR_ESWITCH_MODE (include/uapi/linux/devlink.h)."""

    LEGACY = 0
    SWITCHDEV = 1


class LinkState(enum.IntEnum):
    """IFLA_VF_LINK_STATE_* (include/uapi/linux/if_link.h)."""

    AUTO = 0
    ENABLE = 1
    DISABLE = 2


class DriverError(OSError):
    """A refusal with the text that the driver puts into the extended acknowledgement."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(number, text)
        self.text = text


def factory_mac(place: str) -> bytes:
    """The MAC that a NIC at *place* has from its factory: Mellanox's prefix, and the same at each start."""
    return b"\xec\x0d\x9a" + hashlib.sha256(place.encode()).digest()[:2] + b"\x00"


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass(slots=True)
class Vf:
    """A virtual function: its place, its binding, and the attributes that ``ip link set PF vf N`` sets.

    ``mac`` is the administrator's (all zero: none given); ``vlan`` 0-4095, ``qos`` 0-7, ``vlan_proto`` an ethertype,
    rates in Mbit/s, 0 for no limit.
    """

    index: int
    bdf: str
    bound: bool = False
    mac: bytes = ZERO_MAC
    vlan: int = 0
    qos: int = 0
    vlan_proto: int = 0x8100
    spoofchk: bool = False
    trust: bool = False
    link_state: LinkState = LinkState.AUTO
    min_tx_rate: int = 0
    max_tx_rate: int = 0
    driver_override: str = ""
    msix: int = VF_VECTORS
    """Its MSI-X vectors."""


@dataclass(slots=True)
class Pf:
    """A physical function and its eSwitch."""

    index: int
    bdf: str
    netdev: str
    mac: bytes
    bound: bool = False
    mode: EswitchMode = EswitchMode.LEGACY
    inline_mode: int = 0
    encap: bool = True
    autoprobe: bool = True
    driver_override: str = ""
    vfs: list[Vf] = field(default_factory=list)
    hw_tc_offload: dict[str, bool] = field(default_factory=dict)
    """The feature by role: "uplink", "rep0", "vf0"…"""
    settings: dict[str, dict[str, int]] = field(default_factory=dict)
    """What ``ethtool`` has set otherwise than the driver does (:mod:`asap2.nic.faces.ethtool.settings`), by role."""


@dataclass(slots=True)
class Nic:
    """An adapter: one to two physical functions of one model at a PCI address."""

    name: str
    model: Model
    pci: str
    total_vfs: int
    netns: str
    pfs: list[Pf] = field(default_factory=list)

    @classmethod
    def configured(cls, config: dict[str, Any]) -> Nic:
        """From an entry of the daemon's configuration; ValueError says what is wrong with it."""
        kind = model(config["model"])
        kind = replace(kind, max_rules=config.get("rules", kind.max_rules))
        nic = cls(config["name"], kind, config["pci"], config["total_vfs"], config["netns"])
        domain_bus, _, slot = nic.pci.rpartition(":")
        device, _, function = slot.partition(".")
        if function != "0" or len(domain_bus) != 7:
            raise ValueError(f"pci {nic.pci!r} is not the address of a function 0, as 0000:03:00.0")
        bus = int(domain_bus[5:], 16)
        slot_number = int(device, 16)
        if not 1 <= config["ports"] <= 2:
            raise ValueError(f"a NIC has 1 or 2 ports, not {config['ports']}")
        if not 0 <= nic.total_vfs <= nic.model.max_vfs:
            raise ValueError(f"a {nic.model.name} has at most {nic.model.max_vfs} VFs a port, not {nic.total_vfs}")
        for index in range(config["ports"]):
            name = f"enp{bus}s{slot_number}f{index}"
            mac = bytes.fromhex(config["mac"].replace(":", "")) if "mac" in config else factory_mac(nic.netns)
            mac = mac[:5] + bytes([(mac[5] + index) & 0xFF])
            nic.pfs.append(Pf(index, f"{domain_bus}:{device}.{index}", name, mac))
        return nic

    def vf_bdf(self, pf: Pf, index: int) -> str:
        """The PCI address of VF *index*: routing id = PF + offset + index × stride (PCIe SR-IOV, stride 1)."""
        domain_bus, _, slot = self.pci.rpartition(":")
        devfn = (int(slot[:2], 16) << 3) + 2 + pf.index * self.total_vfs + index
        bus = int(domain_bus[5:], 16) + (devfn >> 8)
        return f"{domain_bus[:5]}{bus:02x}:{(devfn >> 3) & 0x1F:02x}.{devfn & 7}"

    def vf_offset(self, pf: Pf) -> int:
        """First VF's routing id less the PF's (PCI_SRIOV_VF_OFFSET)."""
        return 2 + pf.index * self.total_vfs - pf.index

    @property
    def switch_id(self) -> str:
        """phys_switch_id, hexadecimal: the system image GUID, made from the first port's MAC, which all ports share."""
        mac = self.pfs[0].mac
        return (mac[:3] + b"\x03\x00" + mac[3:])[::-1].hex()


class Driver:
    """Every NIC of one node and what has been done to it."""

    def __init__(self, nics: list[Nic], backend: Backend) -> None:
        self.nics = nics
        self.backend = backend
        self.generation = 0
        """Changes whenever a function, a binding or an attribute does; faces drop what they cached."""

    # ---- finding

    def functions(self) -> Iterator[tuple[Nic, Pf, Vf | None]]:
        """Every PCI function in bus order: a PF, then its VFs."""
        for nic in self.nics:
            for pf in nic.pfs:
                yield nic, pf, None
            for pf in nic.pfs:
                for vf in pf.vfs:
                    yield nic, pf, vf

    def find(self, bdf: str) -> tuple[Nic, Pf, Vf | None]:
        """The function at *bdf*; ENODEV when there is none."""
        for found in self.functions():
            if (found[2] or found[1]).bdf == bdf:
                return found
        raise _error(errno.ENODEV)

    # ---- binding (drivers/base/bus.c, bind_store and unbind_store)

    def bind(self, bdf: str) -> None:
        """Bind the function to mlx5_core. ENODEV: no such function; EBUSY: bound already."""
        nic, pf, vf = self.find(bdf)
        function = vf or pf
        if function.driver_override not in ("", "mlx5_core"):
            raise _error(errno.ENODEV)
        if function.bound:
            raise _error(errno.EBUSY)
        self._probe(nic, pf, vf)
        self.generation += 1

    def unbind(self, bdf: str) -> None:
        """Unbind the function. ENODEV: no such function, or not bound."""
        nic, pf, vf = self.find(bdf)
        if not (vf or pf).bound:
            raise _error(errno.ENODEV)
        if vf is not None:
            self.backend.destroy_vf(nic, pf, vf)
            vf.bound = False
            for kept in (pf.hw_tc_offload, pf.settings):
                kept.pop(f"vf{vf.index}", None)
        else:
            self._disable_sriov(nic, pf)
            if pf.mode is EswitchMode.SWITCHDEV:
                pf.mode = EswitchMode.LEGACY
                self.backend.set_mode(nic, pf)
            self.backend.destroy_pf(nic, pf)
            pf.bound = False
        self.generation += 1

    def reload(self, bdf: str) -> None:
        """Take the function's netdevs down and make them anew (mlx5_devlink_reload_down, mlx5_devlink_reload_up).

        A PF keeps its VFs with their attributes but for the rates, and the eSwitch's mode. ENODEV: no such function,
        or not bound; any other error leaves it without a driver.
        """
        nic, pf, vf = self.find(bdf)
        if not (vf or pf).bound:
            raise _error(errno.ENODEV)
        if vf is not None:
            self.unbind(bdf)
            self._probe(nic, pf, vf)
            self.generation += 1
            return
        if pf.mode is EswitchMode.SWITCHDEV:
            self._destroy_representors(nic, pf)
        self.backend.destroy_pf(nic, pf)
        self._forget(pf, "uplink", "rep")
        for one in pf.vfs:
            one.min_tx_rate = one.max_tx_rate = 0
        self.generation += 1
        try:
            self.backend.create_pf(nic, pf)
        except OSError:
            pf.mode = EswitchMode.LEGACY
            self._disable_sriov(nic, pf)
            pf.bound = False
            raise
        try:
            if pf.mode is EswitchMode.SWITCHDEV:
                self._create_representors(nic, pf)
            self.backend.set_mode(nic, pf)
        except OSError:
            self.unbind(bdf)
            raise

    def probe(self, bdf: str) -> None:
        """Bind the function if a driver wants it (drivers_probe): ENODEV when there is none, else no error at all."""
        _, pf, vf = self.find(bdf)
        function = vf or pf
        if not function.bound and function.driver_override in ("", "mlx5_core"):
            self.bind(bdf)

    def set_driver_override(self, bdf: str, name: str) -> None:
        """The only driver that may bind the function; "" for any that knows it."""
        _, pf, vf = self.find(bdf)
        (vf or pf).driver_override = name
        self.generation += 1

    def set_autoprobe(self, bdf: str, on: bool) -> None:
        """Whether new VFs are bound at once (sriov_drivers_autoprobe)."""
        self.find(bdf)[1].autoprobe = on
        self.generation += 1

    def probe_all(self) -> None:
        """Bind every PF, as the machine does when it boots."""
        for nic in self.nics:
            for pf in nic.pfs:
                if not pf.bound:
                    self._probe(nic, pf, None)
        self.generation += 1

    def _probe(self, nic: Nic, pf: Pf, vf: Vf | None) -> None:
        if vf is None:
            self.backend.create_pf(nic, pf)
            pf.bound = True
            self.backend.set_mode(nic, pf)
            return
        self.backend.create_vf(nic, pf, vf)
        vf.bound = True
        self.backend.set_mode(nic, pf)

    # ---- SR-IOV (drivers/pci/iov.c, sriov_numvfs_store)

    def set_numvfs(self, bdf: str, count: int) -> None:
        """Enable *count* VFs or, with 0, none.

        ERANGE above the total; EBUSY when some are enabled and another number but 0 is asked for; ENOENT when the
        PF has no driver. Asking for the present number changes nothing.
        """
        nic, pf, _ = self.find(bdf)
        if not 0 <= count <= nic.total_vfs:
            raise _error(errno.ERANGE)
        if count == len(pf.vfs):
            return
        if not pf.bound:
            raise _error(errno.ENOENT)
        if count == 0:
            self._disable_sriov(nic, pf)
        elif pf.vfs:
            raise _error(errno.EBUSY)
        else:
            self._enable_sriov(nic, pf, count)
        self.generation += 1

    def set_msix(self, bdf: str, count: int) -> None:
        """Give the VF *count* MSI-X vectors, or with 0 as many as a new one has (mlx5_core_sriov_set_msix_vec_count).

        EOPNOTSUPP when the PF has no driver, or its NIC cannot; EBUSY when the VF has one; EINVAL for too few,
        EOVERFLOW for too many.
        """
        nic, pf, vf = self.find(bdf)
        if vf is None or not pf.bound:
            raise _error(errno.EOPNOTSUPP)
        if vf.bound:
            raise _error(errno.EBUSY)
        if not nic.model.dynamic_msix:
            raise _error(errno.EOPNOTSUPP)
        count = count or VF_VECTORS
        if count < LEAST_VF_VECTORS:
            raise _error(errno.EINVAL)
        if count > MOST_VF_VECTORS:
            raise _error(errno.EOVERFLOW)
        vf.msix = count
        self.generation += 1

    def _enable_sriov(self, nic: Nic, pf: Pf, count: int) -> None:
        pf.vfs = [Vf(i, nic.vf_bdf(pf, i)) for i in range(count)]
        try:
            if pf.mode is EswitchMode.SWITCHDEV:
                self._create_representors(nic, pf)
            if pf.autoprobe:
                for vf in pf.vfs:
                    self.backend.create_vf(nic, pf, vf)
                    vf.bound = True
            self.backend.set_mode(nic, pf)
        except OSError:
            self._disable_sriov(nic, pf)
            raise

    def _disable_sriov(self, nic: Nic, pf: Pf) -> None:
        for vf in pf.vfs:
            if vf.bound:
                self.backend.destroy_vf(nic, pf, vf)
                vf.bound = False
            if pf.mode is EswitchMode.SWITCHDEV:
                self.backend.destroy_representor(nic, pf, vf)
        pf.vfs = []
        self._forget(pf, "rep", "vf")
        self.backend.set_mode(nic, pf)

    @staticmethod
    def _forget(pf: Pf, *roles: str) -> None:
        """Drop what was set of netdevs that are no more."""
        pf.hw_tc_offload = {key: value for key, value in pf.hw_tc_offload.items() if not key.startswith(roles)}
        pf.settings = {key: value for key, value in pf.settings.items() if not key.startswith(roles)}

    # ---- eSwitch mode (mlx5_devlink_eswitch_mode_set)

    def set_mode(self, bdf: str, mode: EswitchMode) -> None:
        """Set the eSwitch's mode; the present one is no change.

        VFs keep their MAC, VLAN, spoof check and trust, which do nothing in switchdev mode but come into force again
        in legacy mode; they lose their rates (esw_vport_cleanup), and their link state is ``auto`` in legacy mode and
        their representor's in switchdev mode (esw_legacy_enable, esw_offloads_enable).

        EOPNOTSUPP on a function that has no eSwitch (a VF, or a NIC without SR-IOV); EBUSY while TC rules are
        offloaded; ENODEV without a driver.
        """
        nic, pf = self.eswitch(bdf)
        if pf.mode is mode:
            return
        if self.backend.offloaded_rules(nic, pf):
            raise DriverError(errno.EBUSY, "mlx5_core: Can't change mode, E-Switch is busy")
        pf.mode = mode
        for vf in pf.vfs:
            vf.min_tx_rate = vf.max_tx_rate = 0
        if mode is EswitchMode.SWITCHDEV:
            pf.inline_mode = pf.inline_mode or nic.model.minimum_inline
            try:
                self._create_representors(nic, pf)
            except OSError as error:
                pf.mode = EswitchMode.LEGACY
                self._destroy_representors(nic, pf)
                raise DriverError(error.errno or 0, "mlx5_core: Failed setting eswitch to offloads") from error
        else:
            self._destroy_representors(nic, pf)
            self._forget(pf, "rep")
        self.backend.set_mode(nic, pf)
        self.generation += 1

    def set_inline_mode(self, bdf: str, mode: int) -> None:
        """Set how much of a packet goes with its descriptor (DEVLINK_ESWITCH_INLINE_MODE_*).

        EOPNOTSUPP where the NIC needs nothing inline, and while TC rules are offloaded; else as :meth:`eswitch`.
        """
        nic, pf = self.eswitch(bdf)
        if not nic.model.minimum_inline:
            if mode == 0:
                return
            raise DriverError(errno.EOPNOTSUPP, "mlx5_core: Inline mode can't be set")
        if self.backend.offloaded_rules(nic, pf):
            raise DriverError(errno.EOPNOTSUPP, "mlx5_core: Can't set inline mode when flows are configured")
        pf.inline_mode = mode
        self.generation += 1

    def set_encap(self, bdf: str, on: bool) -> None:
        """Allow tunnels in the eSwitch, or not.

        EOPNOTSUPP where the NIC has none, and while TC rules are offloaded; else as :meth:`eswitch`.
        """
        nic, pf = self.eswitch(bdf)
        if on and not nic.model.tunnels:
            raise _error(errno.EOPNOTSUPP)
        if on != pf.encap and pf.mode is EswitchMode.SWITCHDEV and self.backend.offloaded_rules(nic, pf):
            raise DriverError(errno.EOPNOTSUPP, "mlx5_core: Can't set encapsulation when flows are configured")
        pf.encap = on
        self.generation += 1

    def eswitch(self, bdf: str) -> tuple[Nic, Pf]:
        """The PF that manages an eSwitch at *bdf*: ENODEV when unknown or unbound, EOPNOTSUPP when it has none."""
        nic, pf, vf = self.find(bdf)
        if not (vf or pf).bound:
            raise _error(errno.ENODEV)
        if vf is not None or nic.total_vfs == 0:
            raise _error(errno.EOPNOTSUPP)
        return nic, pf

    def _create_representors(self, nic: Nic, pf: Pf) -> None:
        for vf in pf.vfs:
            vf.link_state = LinkState.DISABLE
            self.backend.create_representor(nic, pf, vf)

    def _destroy_representors(self, nic: Nic, pf: Pf) -> None:
        for vf in pf.vfs:
            self.backend.destroy_representor(nic, pf, vf)
            vf.link_state = LinkState.AUTO

    # ---- VF attributes (rtnetlink do_setvfinfo → mlx5e_set_vf_* → mlx5_eswitch_set_vport_*)

    def vf(self, pf: Pf, index: int) -> Vf:
        """VF *index* of *pf*; EINVAL when there is none (mlx5_eswitch_get_vport)."""
        if not 0 <= index < len(pf.vfs):
            raise _error(errno.EINVAL)
        return pf.vfs[index]

    def set_vf_mac(self, nic: Nic, pf: Pf, index: int, mac: bytes) -> None:
        """Set the administrator's MAC; EINVAL for a multicast address. A VF takes it when it is next bound."""
        vf = self.vf(pf, index)
        if len(mac) != 6 or mac[0] & 1:
            raise _error(errno.EINVAL)
        vf.mac = bytes(mac)
        self.backend.set_mode(nic, pf)
        self.generation += 1

    def set_vf_vlan(self, nic: Nic, pf: Pf, index: int, vlan: int, qos: int, proto: int) -> None:
        """Set VST: EINVAL for a vlan above 4095 or qos above 7; EPROTONOSUPPORT for another tag than 802.1Q;
        in switchdev mode EOPNOTSUPP (the representor's rules do it), clearing apart, which libvirt does."""
        vf = self.vf(pf, index)
        if proto != 0x8100:
            raise _error(errno.EPROTONOSUPPORT)
        if pf.mode is EswitchMode.SWITCHDEV:
            if vlan == 0:
                return
            raise _error(errno.EOPNOTSUPP)
        if vlan > 4095 or qos > 7:
            raise _error(errno.EINVAL)
        vf.vlan, vf.qos, vf.vlan_proto = vlan, qos, proto
        self.backend.set_mode(nic, pf)
        self.generation += 1

    def set_vf_flag(self, nic: Nic, pf: Pf, index: int, name: str, on: bool) -> None:
        """Set "spoofchk" or "trust"; EOPNOTSUPP in switchdev mode."""
        vf = self.vf(pf, index)
        self._legacy_only(pf)
        setattr(vf, name, on)
        self.backend.set_mode(nic, pf)
        self.generation += 1

    def set_vf_link_state(self, nic: Nic, pf: Pf, index: int, state: int) -> None:
        """Set the link state; EINVAL for an unknown one; EOPNOTSUPP in switchdev mode."""
        vf = self.vf(pf, index)
        self._legacy_only(pf)
        if state not in tuple(LinkState):
            raise _error(errno.EINVAL)
        self._set_link(nic, pf, vf, LinkState(state))

    def follow_representor(self, nic: Nic, pf: Pf, vf: Vf, up: bool) -> None:
        """A representor was set up or down: so is the VF's link (mlx5e_rep_open, mlx5e_rep_close)."""
        state = LinkState.ENABLE if up else LinkState.DISABLE
        if pf.mode is EswitchMode.SWITCHDEV and vf.link_state is not state:
            self._set_link(nic, pf, vf, state)

    def _set_link(self, nic: Nic, pf: Pf, vf: Vf, state: LinkState) -> None:
        vf.link_state = state
        self.backend.set_mode(nic, pf)
        self.generation += 1

    @staticmethod
    def _legacy_only(pf: Pf) -> None:
        if pf.mode is not EswitchMode.LEGACY:
            raise _error(errno.EOPNOTSUPP)

    def set_vf_rate(self, pf: Pf, index: int, min_tx: int, max_tx: int) -> None:
        """Set rate limits in Mbit/s; EINVAL when the minimum is above the maximum."""
        vf = self.vf(pf, index)
        if max_tx and min_tx > max_tx:
            raise _error(errno.EINVAL)
        vf.min_tx_rate, vf.max_tx_rate = min_tx, max_tx
        self.generation += 1

    def set_vf_guid(self, pf: Pf, index: int) -> None:
        """InfiniBand's node and port GUIDs are not for an Ethernet port."""
        self.vf(pf, index)
        raise _error(errno.EOPNOTSUPP)

    # ---- keeping

    def snapshot(self) -> dict[str, Any]:
        """The state as JSON-able data; :meth:`restore` takes it back."""
        return {nic.name: [_plain(asdict(pf)) for pf in nic.pfs] for nic in self.nics}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the state of an earlier run without touching a device."""
        for nic in self.nics:
            for pf, saved in zip(nic.pfs, state.get(nic.name, []), strict=False):
                for name in ("bound", "inline_mode", "encap", "autoprobe", "driver_override", "hw_tc_offload"):
                    setattr(pf, name, saved[name])
                pf.settings = saved.get("settings", {})
                pf.mode = EswitchMode(saved["mode"])
                pf.vfs = [
                    Vf(**{**v, "mac": bytes.fromhex(v["mac"]), "link_state": LinkState(v["link_state"])})
                    for v in saved["vfs"]
                ]
        self.generation += 1


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, enum.Enum):
        return value.value
    return value
