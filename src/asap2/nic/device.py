# SPDX-License-Identifier: Apache-2.0
"""The driver's state machine: PCI functions, SR-IOV, the eSwitch's mode, representors and VF attributes.

It does what mlx5_core and the PCI core do, and no input or output of its own: what must happen to netdevs and to the
silicon goes through :class:`asap2.nic.backend.Backend`, errors are the kernel's errno values as :class:`OSError`
(sysfs, rtnetlink) or :class:`DriverError` (with the extended acknowledgement's text).

Sources: drivers/pci/iov.c, drivers/base/bus.c, drivers/net/ethernet/mellanox/mlx5/core/{sriov,eswitch,
eswitch_offloads}.c of Linux 6.x.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

from asap2.nic.backend import Backend
from asap2.nic.ethertypes import ETH_P_8021Q
from asap2.nic.function import EswitchMode, Function, LinkState, Nic, Pf, Vf
from asap2.nic.model import LEAST_VF_VECTORS, MOST_VF_VECTORS, VF_VECTORS


class DriverError(OSError):
    """A refusal with the text that the driver puts into the extended acknowledgement."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(number, text)
        self.text = text


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Driver:
    """Every NIC of one node and what has been done to it."""

    def __init__(self, nics: list[Nic], backend: Backend, offloaded_rules: Callable[[Pf], int]) -> None:
        """*offloaded_rules* gives how many TC rules of a PF's eSwitch are in hardware."""
        self.nics = nics
        self.backend = backend
        self.offloaded_rules = offloaded_rules
        self.generation = 0
        """Incremented when a function, a binding or an attribute changes; faces then drop what they have cached."""

    # ---- finding

    def functions(self) -> Iterator[Function]:
        """Every function of every NIC, in bus order."""
        for nic in self.nics:
            yield from nic.functions()

    def find(self, bdf: str) -> Function:
        """The function at *bdf*; ENODEV when there is none."""
        for function in self.functions():
            if function.bdf == bdf:
                return function
        raise _error(errno.ENODEV)

    # ---- binding (drivers/base/bus.c, bind_store and unbind_store)

    def bind(self, bdf: str) -> None:
        """Bind the function to mlx5_core. ENODEV: no such function; EBUSY: bound already."""
        function = self.find(bdf)
        if function.driver_override not in ("", "mlx5_core"):
            raise _error(errno.ENODEV)
        if function.bound:
            raise _error(errno.EBUSY)
        self._probe(function)
        self.generation += 1

    def unbind(self, bdf: str) -> None:
        """Unbind the function. ENODEV: no such function, or not bound."""
        function = self._bound(bdf)
        if isinstance(function, Pf):
            self._disable_sriov(function)
            if function.switchdev:
                function.mode = EswitchMode.LEGACY
                self.backend.program(function)
        else:
            for kept in (function.pf.hw_tc_offload, function.pf.settings):
                kept.pop(f"vf{function.index}", None)
        self.backend.destroy(function)
        function.bound = False
        self.generation += 1

    def reload(self, bdf: str) -> None:
        """Remove the function's netdevs and create them again (mlx5_devlink_reload_down, mlx5_devlink_reload_up).

        A PF keeps its VFs, their attributes except for the rates, and the eSwitch's mode. ENODEV: no such function,
        or not bound; any other error leaves it without a driver.
        """
        pf = self._bound(bdf)
        if not isinstance(pf, Pf):
            self.unbind(bdf)
            self._probe(pf)
            self.generation += 1
            return
        if pf.switchdev:
            self._destroy_representors(pf)
        self.backend.destroy(pf)
        self._forget(pf, "uplink", "rep")
        for one in pf.vfs:
            one.forget_rates()
        self.generation += 1
        try:
            self.backend.create(pf)
        except OSError:
            pf.mode = EswitchMode.LEGACY
            self._disable_sriov(pf)
            pf.bound = False
            raise
        try:
            if pf.switchdev:
                self._create_representors(pf)
            self.backend.program(pf)
        except OSError:
            self.unbind(bdf)
            raise

    def probe(self, bdf: str) -> None:
        """Bind the function if a driver wants it (drivers_probe): ENODEV when there is none, else no error at all."""
        function = self.find(bdf)
        if not function.bound and function.driver_override in ("", "mlx5_core"):
            self.bind(bdf)

    def set_driver_override(self, bdf: str, name: str) -> None:
        """The only driver that may bind the function; "" for any that knows it."""
        self.find(bdf).driver_override = name
        self.generation += 1

    def set_autoprobe(self, bdf: str, on: bool) -> None:
        """Whether new VFs are bound at once (sriov_drivers_autoprobe)."""
        self.find(bdf).pf.autoprobe = on
        self.generation += 1

    def probe_all(self) -> None:
        """Bind every PF, as a machine does at boot."""
        for nic in self.nics:
            for pf in nic.pfs:
                if not pf.bound:
                    self._probe(pf)
        self.generation += 1

    def _probe(self, function: Function) -> None:
        self.backend.create(function)
        function.bound = True
        self.backend.program(function.pf)

    def _bound(self, bdf: str) -> Function:
        """The function at *bdf*; ENODEV when there is none, or it has no driver."""
        function = self.find(bdf)
        if not function.bound:
            raise _error(errno.ENODEV)
        return function

    # ---- SR-IOV (drivers/pci/iov.c, sriov_numvfs_store)

    def set_numvfs(self, bdf: str, count: int) -> None:
        """Enable *count* VFs or, with 0, none.

        ERANGE above the total; EBUSY when some are enabled and another number but 0 is asked for; ENOENT when the
        PF has no driver. Asking for the present number changes nothing.
        """
        pf = self.find(bdf).pf
        if not 0 <= count <= pf.nic.total_vfs:
            raise _error(errno.ERANGE)
        if count == len(pf.vfs):
            return
        if not pf.bound:
            raise _error(errno.ENOENT)
        if count == 0:
            self._disable_sriov(pf)
        elif pf.vfs:
            raise _error(errno.EBUSY)
        else:
            self._enable_sriov(pf, count)
        self.generation += 1

    def set_msix(self, bdf: str, count: int) -> None:
        """Give the VF *count* MSI-X vectors, or with 0 as many as a new one has (mlx5_core_sriov_set_msix_vec_count).

        EOPNOTSUPP when the PF has no driver, or its NIC cannot; EBUSY when the VF has one; EINVAL for too few,
        EOVERFLOW for too many.
        """
        vf = self.find(bdf)
        if not isinstance(vf, Vf) or not vf.pf.bound:
            raise _error(errno.EOPNOTSUPP)
        if vf.bound:
            raise _error(errno.EBUSY)
        if not vf.nic.model.dynamic_msix:
            raise _error(errno.EOPNOTSUPP)
        count = count or VF_VECTORS
        if count < LEAST_VF_VECTORS:
            raise _error(errno.EINVAL)
        if count > MOST_VF_VECTORS:
            raise _error(errno.EOVERFLOW)
        vf.msix = count
        self.generation += 1

    def _enable_sriov(self, pf: Pf, count: int) -> None:
        pf.vfs = [Vf(pf, index) for index in range(count)]
        try:
            if pf.switchdev:
                self._create_representors(pf)
            if pf.autoprobe:
                for vf in pf.vfs:
                    self.backend.create(vf)
                    vf.bound = True
            self.backend.program(pf)
        except OSError:
            self._disable_sriov(pf)
            raise

    def _disable_sriov(self, pf: Pf) -> None:
        for vf in pf.vfs:
            if vf.bound:
                self.backend.destroy(vf)
                vf.bound = False
            if pf.switchdev:
                self.backend.destroy_representor(vf)
        pf.vfs = []
        self._forget(pf, "rep", "vf")
        self.backend.program(pf)

    @staticmethod
    def _forget(pf: Pf, *roles: str) -> None:
        """Drop the settings of netdevs that no longer exist."""
        pf.hw_tc_offload = {key: value for key, value in pf.hw_tc_offload.items() if not key.startswith(roles)}
        pf.settings = {key: value for key, value in pf.settings.items() if not key.startswith(roles)}

    # ---- eSwitch mode (mlx5_devlink_eswitch_mode_set)

    def set_mode(self, bdf: str, mode: EswitchMode) -> None:
        """Set the eSwitch's mode; setting the present mode changes nothing.

        VFs keep their MAC, VLAN, spoof check and trust, which do nothing in switchdev mode but come into force again
        in legacy mode; they lose their rates (esw_vport_cleanup), and their link state is ``auto`` in legacy mode and
        their representor's in switchdev mode (esw_legacy_enable, esw_offloads_enable).

        EOPNOTSUPP on a function that has no eSwitch (a VF, or a NIC without SR-IOV); EBUSY while TC rules are
        offloaded; ENODEV without a driver.
        """
        pf = self.eswitch(bdf)
        if pf.mode is mode:
            return
        if self.offloaded_rules(pf):
            raise DriverError(errno.EBUSY, "mlx5_core: Can't change mode, E-Switch is busy")
        pf.mode = mode
        for vf in pf.vfs:
            vf.forget_rates()
        if mode is EswitchMode.SWITCHDEV:
            pf.inline_mode = pf.inline_mode or pf.nic.model.minimum_inline
            try:
                self._create_representors(pf)
            except OSError as error:
                pf.mode = EswitchMode.LEGACY
                self._destroy_representors(pf)
                raise DriverError(error.errno or 0, "mlx5_core: Failed setting eswitch to offloads") from error
        else:
            self._destroy_representors(pf)
            self._forget(pf, "rep")
        self.backend.program(pf)
        self.generation += 1

    def set_inline_mode(self, bdf: str, mode: int) -> None:
        """Set how much of a packet goes with its descriptor (DEVLINK_ESWITCH_INLINE_MODE_*).

        EOPNOTSUPP where the NIC needs nothing inline, and while TC rules are offloaded; else as :meth:`eswitch`.
        """
        pf = self.eswitch(bdf)
        if not pf.nic.model.minimum_inline:
            if mode == 0:
                return
            raise DriverError(errno.EOPNOTSUPP, "mlx5_core: Inline mode can't be set")
        if self.offloaded_rules(pf):
            raise DriverError(errno.EOPNOTSUPP, "mlx5_core: Can't set inline mode when flows are configured")
        pf.inline_mode = mode
        self.generation += 1

    def set_encap(self, bdf: str, on: bool) -> None:
        """Allow tunnels in the eSwitch, or not.

        EOPNOTSUPP where the NIC has none, and while TC rules are offloaded; else as :meth:`eswitch`.
        """
        pf = self.eswitch(bdf)
        if on and not pf.nic.model.tunnels:
            raise _error(errno.EOPNOTSUPP)
        if on != pf.encap and pf.switchdev and self.offloaded_rules(pf):
            raise DriverError(errno.EOPNOTSUPP, "mlx5_core: Can't set encapsulation when flows are configured")
        pf.encap = on
        self.generation += 1

    def eswitch(self, bdf: str) -> Pf:
        """The PF that manages an eSwitch at *bdf*: ENODEV when unknown or unbound, EOPNOTSUPP when it has none."""
        function = self._bound(bdf)
        if not isinstance(function, Pf) or function.nic.total_vfs == 0:
            raise _error(errno.EOPNOTSUPP)
        return function

    def _create_representors(self, pf: Pf) -> None:
        for vf in pf.vfs:
            vf.link_state = LinkState.DISABLE
            self.backend.create_representor(vf)

    def _destroy_representors(self, pf: Pf) -> None:
        for vf in pf.vfs:
            self.backend.destroy_representor(vf)
            vf.link_state = LinkState.AUTO

    # ---- VF attributes (rtnetlink do_setvfinfo → mlx5e_set_vf_* → mlx5_eswitch_set_vport_*)

    def vf(self, pf: Pf, index: int) -> Vf:
        """VF *index* of *pf*; EINVAL when there is none (mlx5_eswitch_get_vport)."""
        if not 0 <= index < len(pf.vfs):
            raise _error(errno.EINVAL)
        return pf.vfs[index]

    def set_vf_mac(self, pf: Pf, index: int, mac: bytes) -> None:
        """Set the administrator's MAC; EINVAL for a multicast address. A VF takes it when it is next bound."""
        vf = self.vf(pf, index)
        if len(mac) != 6 or mac[0] & 1:
            raise _error(errno.EINVAL)
        vf.mac = bytes(mac)
        self.backend.program(pf)
        self.generation += 1

    def set_vf_vlan(self, pf: Pf, index: int, vlan: int, qos: int, proto: int) -> None:
        """Set VST: EINVAL for a vlan above 4095 or qos above 7; EPROTONOSUPPORT for another tag than 802.1Q;
        in switchdev mode EOPNOTSUPP (the representor's rules do it), clearing apart, which libvirt does."""
        if proto != ETH_P_8021Q:  # before it looks whether there is such a VF (mlx5e_set_vf_vlan)
            raise _error(errno.EPROTONOSUPPORT)
        vf = self.vf(pf, index)
        if pf.switchdev:
            if vlan == 0:
                return
            raise _error(errno.EOPNOTSUPP)
        if vlan > 4095 or qos > 7:
            raise _error(errno.EINVAL)
        vf.vlan, vf.qos, vf.vlan_proto = vlan, qos, proto
        self.backend.program(pf)
        self.generation += 1

    def set_vf_flag(self, pf: Pf, index: int, name: str, on: bool) -> None:
        """Set "spoofchk" or "trust"; EOPNOTSUPP in switchdev mode."""
        vf = self.vf(pf, index)
        self._legacy_only(pf)
        setattr(vf, name, on)
        self.backend.program(pf)
        self.generation += 1

    def set_vf_link_state(self, pf: Pf, index: int, state: int) -> None:
        """Set the link state; EINVAL for an unknown one; EOPNOTSUPP in switchdev mode."""
        vf = self.vf(pf, index)
        self._legacy_only(pf)
        if state not in tuple(LinkState):
            raise _error(errno.EINVAL)
        self._set_link(vf, LinkState(state))

    def follow_representor(self, vf: Vf, up: bool) -> None:
        """A representor was set up or down: so is the VF's link (mlx5e_rep_open, mlx5e_rep_close)."""
        state = LinkState.ENABLE if up else LinkState.DISABLE
        if vf.pf.switchdev and vf.link_state is not state:
            self._set_link(vf, state)

    def _set_link(self, vf: Vf, state: LinkState) -> None:
        vf.link_state = state
        self.backend.program(vf.pf)
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
        self.backend.program(pf)
        self.generation += 1

    def set_port_rate(self, vf: Vf, min_tx: int | None, max_tx: int | None) -> None:
        """Set one of a VF's rates in Mbit/s, or both, as devlink does: without a look at the other."""
        vf.min_tx_rate = vf.min_tx_rate if min_tx is None else min_tx
        vf.max_tx_rate = vf.max_tx_rate if max_tx is None else max_tx
        self.backend.program(vf.pf)
        self.generation += 1

    def set_vf_guid(self, pf: Pf, index: int) -> None:
        """InfiniBand's node and port GUIDs are not for an Ethernet port."""
        self.vf(pf, index)
        raise _error(errno.EOPNOTSUPP)

    # ---- keeping

    def snapshot(self) -> dict[str, Any]:
        """The state as JSON-able data; :meth:`restore` takes it back."""
        return {nic.name: [pf.state() for pf in nic.pfs] for nic in self.nics}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the state of an earlier run without touching a device."""
        for nic in self.nics:
            for pf, saved in zip(nic.pfs, state.get(nic.name, []), strict=False):
                pf.restore(saved)
        self.generation += 1
