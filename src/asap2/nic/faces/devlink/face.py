# SPDX-License-Identifier: Apache-2.0
"""devlink: the NIC's functions as devices, their eSwitch, ports, versions and parameters, as mlx5 answers.

Port indices are mlx5's: the function's number in the adapter above bit 16, its vport below (0xffff the uplink, VF n is
n + 1). The devices are in the node's network namespace; elsewhere there are none.

Sources: net/devlink/*.c, drivers/net/ethernet/mellanox/mlx5/core/{devlink,esw/devlink_port,en/devlink,
eswitch_offloads}.c of Linux 6.x.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from asap2.netlink.codec import Attrs
from asap2.netlink.request import (
    GENL_ADMIN_PERM,
    GENL_CMD_CAP_DO,
    GENL_CMD_CAP_DUMP,
    Answer,
    GenlFamily,
    GenlHeader,
    Message,
    Reply,
    Request,
)
from asap2.netlink.server import Server
from asap2.netlink.tables.actions import Bitfield32
from asap2.netlink.tables.devlink import (
    DEVLINK,
    DEVLINK_ATTRS,
    DEVLINK_CMD_ESWITCH_GET,
    DEVLINK_CMD_ESWITCH_SET,
    DEVLINK_CMD_GET,
    DEVLINK_CMD_HEALTH_REPORTER_GET,
    DEVLINK_CMD_INFO_GET,
    DEVLINK_CMD_NEW,
    DEVLINK_CMD_PARAM_GET,
    DEVLINK_CMD_PARAM_SET,
    DEVLINK_CMD_PORT_DEL,
    DEVLINK_CMD_PORT_GET,
    DEVLINK_CMD_PORT_NEW,
    DEVLINK_CMD_PORT_SET,
    DEVLINK_CMD_RATE_DEL,
    DEVLINK_CMD_RATE_GET,
    DEVLINK_CMD_RATE_NEW,
    DEVLINK_CMD_RATE_SET,
    DEVLINK_CMD_RELOAD,
    DEVLINK_PORT_FLAVOUR_PCI_VF,
    DEVLINK_PORT_FLAVOUR_PHYSICAL,
    DEVLINK_PORT_FLAVOUR_VIRTUAL,
    DEVLINK_PORT_TYPE_ETH,
    DEVLINK_PORT_TYPE_NOTSET,
    DEVLINK_RELOAD_ACTION_DRIVER_REINIT,
    DEVLINK_RELOAD_ACTION_FW_ACTIVATE,
)
from asap2.netlink.tables.genl import GenlHdr
from asap2.netlink.wire import NetlinkError
from asap2.nic.device import Driver
from asap2.nic.faces.devlink import health, rates
from asap2.nic.faces.devlink import params as devlink_params
from asap2.nic.faces.devlink.reloads import check_limits
from asap2.nic.faces.refusal import as_netlink
from asap2.nic.function import EswitchMode, Function, Pf, Role, Vf
from asap2.nic.netdevs import NetDev, NetDevs

FAMILY_ID = 0x7030
CONFIG_GROUP = 0x7030
DEVLINK_CMD_DEL = 4

_DO, _DUMP, _ADMIN = GENL_CMD_CAP_DO, GENL_CMD_CAP_DUMP, GENL_ADMIN_PERM
_MAXATTR = 182
_RELOADS = (DEVLINK_RELOAD_ACTION_DRIVER_REINIT, DEVLINK_RELOAD_ACTION_FW_ACTIVATE)


class DevlinkFace:
    """Serves devlink."""

    def __init__(self, server: Server, driver: Driver, netdevs: NetDevs) -> None:
        self.driver = driver
        self.netdevs = netdevs
        self._server = server
        server.family(
            GenlFamily(
                "devlink",
                FAMILY_ID,
                version=1,
                maxattr=_MAXATTR,
                ops=(
                    (DEVLINK_CMD_GET, _DO | _DUMP),
                    (DEVLINK_CMD_PORT_GET, _DO | _DUMP),
                    (DEVLINK_CMD_PORT_SET, _DO | _ADMIN),
                    (DEVLINK_CMD_ESWITCH_GET, _DO | _ADMIN),
                    (DEVLINK_CMD_ESWITCH_SET, _DO | _ADMIN),
                    (DEVLINK_CMD_RELOAD, _DO | _ADMIN),
                    (DEVLINK_CMD_PARAM_GET, _DO | _DUMP),
                    (DEVLINK_CMD_PARAM_SET, _DO | _ADMIN),
                    (DEVLINK_CMD_INFO_GET, _DO | _DUMP),
                    (DEVLINK_CMD_HEALTH_REPORTER_GET, _DO | _DUMP),
                    (DEVLINK_CMD_RATE_GET, _DO | _DUMP),
                    (DEVLINK_CMD_RATE_SET, _DO | _ADMIN),
                    (DEVLINK_CMD_RATE_NEW, _DO | _ADMIN),
                    (DEVLINK_CMD_RATE_DEL, _DO | _ADMIN),
                ),
                groups=(("config", CONFIG_GROUP),),
                handlers={
                    DEVLINK_CMD_GET: self.device_get,
                    DEVLINK_CMD_PORT_GET: self.port_get,
                    DEVLINK_CMD_PORT_SET: self.port_set,
                    DEVLINK_CMD_ESWITCH_GET: self.eswitch_get,
                    DEVLINK_CMD_ESWITCH_SET: self.eswitch_set,
                    DEVLINK_CMD_RELOAD: self.reload,
                    DEVLINK_CMD_PARAM_GET: self.param_get,
                    DEVLINK_CMD_PARAM_SET: self.param_set,
                    DEVLINK_CMD_INFO_GET: self.info_get,
                    DEVLINK_CMD_HEALTH_REPORTER_GET: self.health_get,
                    DEVLINK_CMD_RATE_GET: self.rate_get,
                    DEVLINK_CMD_RATE_SET: self.rate_set,
                    DEVLINK_CMD_RATE_NEW: self.rate_new,
                    DEVLINK_CMD_RATE_DEL: self.rate_del,
                },
            )
        )
        self._told = dict(self._objects())

    def changed(self) -> None:
        """Tell the group ``config`` what has come, gone or changed since the last call."""
        now = dict(self._objects())
        before, self._told = self._told, now
        if now == before:
            return
        deletion = {
            DEVLINK_CMD_NEW: DEVLINK_CMD_DEL,
            DEVLINK_CMD_PORT_NEW: DEVLINK_CMD_PORT_DEL,
            DEVLINK_CMD_RATE_NEW: DEVLINK_CMD_RATE_DEL,
        }
        for key, (command, _body) in reversed(before.items()):
            if key not in now:
                self._server.multicast("devlink", "config", _encoded(deletion[command], key))
        for key, (command, body) in now.items():
            if before.get(key) != (command, body):
                self._server.multicast("devlink", "config", _encoded(command, body))

    def _objects(self) -> Iterator[tuple[bytes, tuple[int, bytes]]]:
        """What the group is told of: naming attributes to (command, all attributes), devices before their ports."""
        for function in self.functions():
            handle = DEVLINK_ATTRS.encode(_handle(function))
            yield handle, (DEVLINK_CMD_NEW, DEVLINK_ATTRS.encode(_device(function)))
            for port in self.ports(function):
                key = handle + DEVLINK_ATTRS.encode({"port_index": port["port_index"]})
                yield key, (DEVLINK_CMD_PORT_NEW, DEVLINK_ATTRS.encode(port))
            for vf, index in self._leafs(function):
                key = DEVLINK_ATTRS.encode(_handle(function) | rates.named(index))
                yield key, (DEVLINK_CMD_RATE_NEW, DEVLINK_ATTRS.encode(_rate(function, vf, index)))

    # ---- finding

    def functions(self) -> Iterator[Function]:
        """Every devlink device, in bus order: the functions that are bound."""
        return (function for function in self.driver.functions() if function.bound)

    def _here(self, request: Request) -> Iterator[Function]:
        """The devices of the client's namespace."""
        if request.client.netns.cookie == self._server.netns.cookie:
            yield from self.functions()

    def _one(self, request: Request, attrs: Attrs) -> Function:
        """The device that *attrs* name: EINVAL when they name none, ENODEV when there is none so named."""
        if "bus_name" not in attrs or "dev_name" not in attrs:
            raise NetlinkError(errno.EINVAL, at_start=True)
        for function in self._here(request):
            if attrs["bus_name"] == "pci" and attrs["dev_name"] == function.bdf:
                return function
        raise NetlinkError(errno.ENODEV, at_start=True)

    def _some(self, request: Request, attrs: Attrs) -> list[Function]:
        """The one device named, or in a dump that names none, all."""
        if request.dump and "bus_name" not in attrs and "dev_name" not in attrs:
            return list(self._here(request))
        return [self._one(request, attrs)]

    # ---- devices

    def device_get(self, request: Request, header: GenlHeader) -> Answer:
        """DEVLINK_CMD_GET: ``devlink dev show``."""
        attrs = DEVLINK_ATTRS.decode(header.attrs)
        return [_message(DEVLINK_CMD_NEW, _device(function)) for function in self._some(request, attrs)]

    def info_get(self, request: Request, header: GenlHeader) -> Answer:
        """DEVLINK_CMD_INFO_GET: ``devlink dev info``."""
        attrs = DEVLINK_ATTRS.decode(header.attrs)
        return [_message(DEVLINK_CMD_INFO_GET, _info(function)) for function in self._some(request, attrs)]

    def reload(self, request: Request, header: GenlHeader) -> Answer:
        """DEVLINK_CMD_RELOAD: ``devlink dev reload``, which restarts the driver, or the firmware too.

        A request that names an action is answered with the actions performed (devlink_nl_cmd_reload).
        """
        attrs = DEVLINK_ATTRS.decode(header.attrs)
        function = self._one(request, attrs)
        asked, limits = attrs.get("reload_action"), attrs.get("reload_limits")
        action = asked or DEVLINK_RELOAD_ACTION_DRIVER_REINIT
        done = 1 << action
        if asked is not None and asked not in _RELOADS:
            raise NetlinkError(errno.ERANGE, "integer out of range", at_start=True)
        if limits is not None:
            check_limits(action, limits.value & limits.selector)
        if any(name in attrs for name in ("netns_fd", "netns_pid", "netns_id")):
            text = "a software NIC's function cannot go to another network namespace"
            raise NetlinkError(errno.EOPNOTSUPP, f"mlx5_core: {text}", at_start=True)
        if action == DEVLINK_RELOAD_ACTION_FW_ACTIVATE:
            done |= 1 << DEVLINK_RELOAD_ACTION_DRIVER_REINIT
        warning = "mlx5_core: reload while VFs are present is unfavorable"
        unfavorable = isinstance(function, Pf) and bool(function.vfs)
        try:
            with as_netlink():
                self.driver.reload(function.bdf)
        finally:
            self.changed()
        told = {**_handle(function), "reload_actions_performed": Bitfield32(done, done)}
        messages = [] if asked is None else [_message(DEVLINK_CMD_RELOAD, told)]
        return Reply(messages, warning) if unfavorable else messages or None

    # ---- the eSwitch

    def eswitch_get(self, request: Request, header: GenlHeader) -> Answer:
        """DEVLINK_CMD_ESWITCH_GET: ``devlink dev eswitch show``."""
        function = self._one(request, DEVLINK_ATTRS.decode(header.attrs))
        with as_netlink():
            pf = self.driver.eswitch(function.bdf)
        state = {
            "eswitch_mode": pf.mode.value,
            "eswitch_inline_mode": pf.inline_mode or pf.nic.model.minimum_inline,
            "eswitch_encap_mode": int(pf.encap and bool(pf.nic.model.tunnels)),
        }
        return [_message(DEVLINK_CMD_ESWITCH_GET, {**_handle(function), **state})]

    def eswitch_set(self, request: Request, header: GenlHeader) -> Answer:
        """DEVLINK_CMD_ESWITCH_SET: mode, inline mode and encapsulation, in this order; an error leaves what is done."""
        attrs = DEVLINK_ATTRS.decode(header.attrs)
        bdf = self._one(request, attrs).bdf
        for name, most in (("eswitch_mode", 1), ("eswitch_inline_mode", 3), ("eswitch_encap_mode", 1)):
            if attrs.get(name, 0) > most:
                raise NetlinkError(errno.ERANGE, "integer out of range", at_start=True)
        try:
            with as_netlink():
                if "eswitch_mode" in attrs:
                    self._set_mode(bdf, EswitchMode(attrs["eswitch_mode"]))
                if "eswitch_inline_mode" in attrs:
                    self.driver.set_inline_mode(bdf, attrs["eswitch_inline_mode"])
                if "eswitch_encap_mode" in attrs:
                    self.driver.set_encap(bdf, bool(attrs["eswitch_encap_mode"]))
        finally:
            self.changed()
        return None

    def _set_mode(self, bdf: str, mode: EswitchMode) -> None:
        pf = self.driver.eswitch(bdf)
        at_home = any(device.role is Role.PF and device.pf is pf for device in self.netdevs.all())
        if mode is EswitchMode.SWITCHDEV and not at_home:
            text = "Can't change E-Switch mode to switchdev when netdev net namespace has diverged from the devlink's."
            raise NetlinkError(errno.EPERM, f"mlx5_core: {text}", at_start=True)
        self.driver.set_mode(bdf, mode)

    # ---- ports

    def ports(self, function: Function) -> Iterator[dict[str, Any]]:
        """The attributes of a device's ports, in the order of devlink_nl_port_fill().

        The uplink's is first, as mlx5 registers it (esw_offloads_enable) and Linux 6.1 lists it. From Linux 6.2 on,
        ports are listed by number, and OVN's plug provider for representors takes no VF before it has seen the PF.
        """
        base = function.number << 16
        netdev = self._netdev(function.role, function)
        if not isinstance(function, Pf):
            yield {
                **_port(function, base, netdev, DEVLINK_PORT_FLAVOUR_VIRTUAL),
                "port_type": DEVLINK_PORT_TYPE_ETH,
            }
            return
        index = base | function.vport
        yield {**_port(function, index, netdev, DEVLINK_PORT_FLAVOUR_PHYSICAL), "port_number": function.index}
        if function.switchdev:
            for vf in function.vfs:
                representor = self._netdev(Role.REPRESENTOR, vf)
                yield {
                    **_port(function, base | vf.vport, representor, DEVLINK_PORT_FLAVOUR_PCI_VF),
                    "port_controller_number": 0,
                    "port_pci_pf_number": function.index,
                    "port_pci_vf_number": vf.index,
                    "port_external": 0,
                    "port_function": {"hw_addr": vf.mac},
                }

    def _netdev(self, role: Role, function: Function) -> NetDev | None:
        return next((d for d in self.netdevs.all() if d.role is role and d.function is function), None)

    def port_get(self, request: Request, header: GenlHeader) -> Answer:
        """DEVLINK_CMD_PORT_GET: ``devlink port show``."""
        attrs = DEVLINK_ATTRS.decode(header.attrs)
        if request.dump:
            found = [port for function in self._some(request, attrs) for port in self.ports(function)]
        else:
            found = [self._one_port(self._one(request, attrs), attrs)]
        return [_message(DEVLINK_CMD_PORT_NEW, port) for port in found]

    def _one_port(self, function: Function, attrs: Attrs) -> dict[str, Any]:
        if "port_index" not in attrs:
            raise NetlinkError(errno.EINVAL, at_start=True)
        for port in self.ports(function):
            if port["port_index"] == attrs["port_index"]:
                return port
        raise NetlinkError(errno.ENODEV, at_start=True)

    def port_set(self, request: Request, header: GenlHeader) -> Answer:
        """DEVLINK_CMD_PORT_SET: ``devlink port function set … hw_addr``, the MAC of the VF behind a port."""
        attrs = DEVLINK_ATTRS.decode(header.attrs)
        function = self._one(request, attrs)
        port = self._one_port(function, attrs)
        if "port_type" in attrs:
            raise NetlinkError(errno.EOPNOTSUPP, at_start=True)
        wanted = attrs.get("port_function", {})
        if "hw_addr" in wanted:
            address = wanted["hw_addr"]
            if len(address) != 6:
                raise NetlinkError(errno.EINVAL, "Address must be 6 bytes for Ethernet device", at_start=True)
            if address[0] & 1:
                raise NetlinkError(errno.EINVAL, "Non-unicast hardware address unsupported", at_start=True)
            if "port_pci_vf_number" not in port:
                raise NetlinkError(errno.EINVAL, "mlx5_core: Port doesn't support set hw_addr", at_start=True)
            with as_netlink():
                self.driver.set_vf_mac(function.pf, port["port_pci_vf_number"], address)
        if "state" in wanted:
            raise NetlinkError(errno.EOPNOTSUPP, "Function does not support state setting", at_start=True)
        if "caps" in wanted:
            raise NetlinkError(errno.EOPNOTSUPP, "Port doesn't support function attributes", at_start=True)
        self.changed()
        return None

    # ---- health

    def health_get(self, request: Request, header: GenlHeader) -> Answer:
        """DEVLINK_CMD_HEALTH_REPORTER_GET: ``devlink health show``."""
        attrs = DEVLINK_ATTRS.decode(header.attrs)
        functions = self._some(request, attrs) if request.dump else [self._one(request, attrs)]
        found = [one for each in functions for one in health.shown(_handle(each), self.ports(each), each)]
        if "port_index" in attrs:
            found = [one for one in found if one.get("port_index") == attrs["port_index"]]
        elif not request.dump:
            found = [one for one in found if "port_index" not in one]
        if not request.dump:
            found = [one for one in found if one["health_reporter"]["name"] == attrs.get("health_reporter_name")]
            if not found:
                raise NetlinkError(errno.EINVAL, at_start=True)
        return [_message(DEVLINK_CMD_HEALTH_REPORTER_GET, one) for one in found]

    # ---- rates

    @staticmethod
    def _leafs(function: Function) -> Iterator[tuple[Vf, int]]:
        """The VFs of a PF whose ports have rates, with the index of the port."""
        if isinstance(function, Pf) and function.switchdev:
            for vf in function.vfs:
                yield vf, function.number << 16 | vf.vport

    def _one_leaf(self, function: Function, attrs: Attrs) -> tuple[Vf, int]:
        """The leaf that *attrs* name; EINVAL when they name none, ENODEV when there is none."""
        if "port_index" in attrs:
            for vf, index in self._leafs(function):
                if index == attrs["port_index"]:
                    return vf, index
        else:
            rates.check_node(attrs)
        raise NetlinkError(errno.ENODEV, at_start=True)

    def rate_get(self, request: Request, header: GenlHeader) -> Answer:
        """DEVLINK_CMD_RATE_GET: ``devlink port function rate show``."""
        attrs = DEVLINK_ATTRS.decode(header.attrs)
        if request.dump:
            functions = self._some(request, attrs)
            found = [(function, *one) for function in functions for one in self._leafs(function)]
        else:
            function = self._one(request, attrs)
            found = [(function, *self._one_leaf(function, attrs))]
        return [_message(DEVLINK_CMD_RATE_NEW, _rate(*one)) for one in found]

    def rate_set(self, request: Request, header: GenlHeader) -> Answer:
        """DEVLINK_CMD_RATE_SET: ``devlink port function rate set``."""
        attrs = DEVLINK_ATTRS.decode(header.attrs)
        vf, _ = self._one_leaf(self._one(request, attrs), attrs)
        try:
            with as_netlink():
                rates.set_leaf(self.driver, vf, attrs)
        finally:
            self.changed()
        return None

    def rate_new(self, request: Request, header: GenlHeader) -> Answer:
        """DEVLINK_CMD_RATE_NEW: ``devlink port function rate add``."""
        attrs = DEVLINK_ATTRS.decode(header.attrs)
        rates.new_node(self._one(request, attrs).pf, attrs)
        return None

    def rate_del(self, request: Request, header: GenlHeader) -> Answer:
        """DEVLINK_CMD_RATE_DEL: ``devlink port function rate del``."""
        attrs = DEVLINK_ATTRS.decode(header.attrs)
        self._one(request, attrs)
        rates.check_node(attrs)
        raise NetlinkError(errno.ENODEV, at_start=True)

    # ---- parameters

    def param_get(self, request: Request, header: GenlHeader) -> Answer:
        """DEVLINK_CMD_PARAM_GET: ``devlink dev param show``."""
        attrs = DEVLINK_ATTRS.decode(header.attrs)
        if request.dump:
            return [
                _message(DEVLINK_CMD_PARAM_GET, {**_handle(function), "param": parameter.attributes})
                for function in self._some(request, attrs)
                for parameter in devlink_params.parameters(function)
            ]
        function = self._one(request, attrs)
        parameter = self._parameter(function, attrs)
        return [_message(DEVLINK_CMD_PARAM_GET, {**_handle(function), "param": parameter.attributes})]

    def param_set(self, request: Request, header: GenlHeader) -> Answer:
        """DEVLINK_CMD_PARAM_SET: parameters of a software NIC are fixed; setting the present value is no change."""
        attrs = DEVLINK_ATTRS.decode(header.attrs)
        function = self._one(request, attrs)
        parameter = self._parameter(function, attrs)
        with as_netlink():
            devlink_params.refuse_change(parameter, attrs, function.pf.mode)
        return None

    def _parameter(self, function: Function, attrs: Attrs) -> devlink_params.Parameter:
        for parameter in devlink_params.parameters(function):
            if parameter.name == attrs.get("param_name"):
                return parameter
        raise NetlinkError(errno.EINVAL, at_start=True)


def _encoded(command: int, body: bytes) -> bytes:
    return bytes((command, 1, 0, 0)) + body


def _message(command: int, attrs: dict[str, Any]) -> Message:
    return Message(FAMILY_ID, DEVLINK.encode(GenlHdr(command, 1), attrs))


def _handle(function: Function) -> dict[str, Any]:
    """The attributes that name a device."""
    return {"bus_name": "pci", "dev_name": function.bdf}


def _device(function: Function) -> dict[str, Any]:
    return {**_handle(function), "reload_failed": 0}


def _rate(function: Function, vf: Vf, index: int) -> dict[str, Any]:
    return {**_handle(function), **rates.named(index), **rates.leaf(vf)}


def _info(function: Function) -> dict[str, Any]:
    """mlx5_devlink_info_get()."""
    model = function.nic.model
    versions = [{"name": name, "value": model.firmware} for name in ("fw.version", "fw")]
    return {
        **_handle(function),
        "info_driver_name": "mlx5_core",
        "info_version_fixed": [{"name": "fw.psid", "value": model.board_id}],
        "info_version_running": versions,
        "info_version_stored": versions,
    }


def _port(function: Function, index: int, netdev: NetDev | None, flavour: int) -> dict[str, Any]:
    """What a port of any flavour has; the netdev only where it is in the node's namespace."""
    attrs: dict[str, Any] = {
        **_handle(function),
        "port_index": index,
        "port_type": DEVLINK_PORT_TYPE_ETH if netdev else DEVLINK_PORT_TYPE_NOTSET,
    }
    if netdev is not None:
        attrs["port_netdev_ifindex"] = netdev.ifindex
        attrs["port_netdev_name"] = netdev.name
    return {**attrs, "port_splittable": 0, "port_flavour": flavour}
