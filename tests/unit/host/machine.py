# SPDX-License-Identifier: Apache-2.0
"""A model of a host that can be set up: a driver as strict as the strictest, and an Open vSwitch that needs a restart.

It refuses what real ones refuse: another number of VFs while there are some, a change of mode while a VF is bound (or
with ``no_vfs_while_switching`` while there is one) or rules are offloaded, steering in switchdev mode, ports that are
not there.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from asap2.host.inventory import (
    Bridge,
    Eswitch,
    Filter,
    Host,
    Interface,
    Netdev,
    OpenVSwitch,
    Pf,
    Port,
    Qdisc,
    Vf,
)
from asap2.host.setup.failure import StepError
from asap2.host.setup.plan import find
from asap2.host.setup.steps import (
    AddIngress,
    AddPorts,
    CleanTc,
    DeletePorts,
    PortRef,
    RestartSwitch,
    SetBridge,
    SetDrivers,
    SetEswitch,
    SetOption,
    SetParam,
    SetPorts,
    SetVfAttributes,
    SetVfs,
    Step,
)
from asap2.netlink.tables.tc import TC, Tcmsg, info
from tests.unit.host.hosts import SWITCH_ID, UFID, fresh

DRIVER = "mlx5_core"
OTHERS = TC.encode(Tcmsg(info=info(7, 0x0806)), {"kind": "flower", "options": {}}).hex()
"""A filter of somebody's, as it is dumped."""


@dataclass
class Device:
    """A network device."""

    name: str
    up: bool = False
    mtu: int = 1500
    offload: bool = False


@dataclass
class Function:
    """A VF with its own device while it is bound, and its representor in switchdev mode."""

    vf: Vf
    own: Device | None = None
    representor: Device | None = None
    taken: str = field(default="00:00:00:00:00:00", compare=False)
    """The administrator's MAC when it was last bound."""


@dataclass
class Nic:
    """A PF."""

    address: str
    uplink: Device
    total: int = 8
    mode: str = "legacy"
    encap: str = "basic"
    steering: str = "dmfs"
    autoprobe: bool = True
    vfs: list[Function] = field(default_factory=list)
    made: int = 0


@dataclass
class Model:
    """The host; ``fail`` names a step by its place that fails, counted from 1."""

    nics: list[Nic]
    options: dict[str, str] = field(default_factory=dict)
    in_force: dict[str, str] = field(default_factory=dict)
    bridges: dict[str, list[str]] = field(default_factory=dict)
    qdiscs: set[str] = field(default_factory=set)
    filters: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)
    """Devices with a filter that is not Open vSwitch's."""
    no_vfs_while_switching: bool = False
    running: bool = True
    restarts: int = 0
    fail: int = 0
    done: int = 0

    # ---- looking

    def look(self) -> Host:
        """The host now."""
        host = fresh()
        devices = [
            device
            for nic in self.nics
            for device in (nic.uplink, *(d for f in nic.vfs for d in (f.representor, f.own) if d is not None))
        ]
        present = {device.name for device in devices} | set(self.bridges)
        return dataclasses.replace(
            host,
            pfs=tuple(self._pf(host.pfs[0], nic) for nic in self.nics),
            netdevs=tuple(netdev for nic in self.nics for netdev in self._netdevs(nic)),
            qdiscs=tuple(Qdisc(name, "ingress") for name in sorted(self.qdiscs & present)),
            filters=tuple(
                one
                for name in sorted(present)
                for one in (
                    *([Filter(name, "flower", 2, 0x0800, 1, in_hw=True, cookie=UFID)] if name in self.filters else []),
                    *([Filter(name, "flower", 7, 0x0806, 1, message=OTHERS)] if name in self.others else []),
                )
            ),
            openvswitch=OpenVSwitch(
                "3.1.0",
                True,
                self.running,
                "3.1.0",
                tuple(sorted(self.options.items())),
                tuple(
                    Bridge(name, "system", tuple(Port(port, interfaces=(Interface(port),)) for port in (name, *ports)))
                    for name, ports in sorted(self.bridges.items())
                ),
                service="openvswitch-switch",
            ),
        )

    def _pf(self, like: Pf, nic: Nic) -> Pf:
        return dataclasses.replace(
            like,
            address=nic.address,
            netdev=nic.uplink.name,
            total_vfs=nic.total,
            num_vfs=len(nic.vfs),
            autoprobe=nic.autoprobe,
            eswitch=Eswitch(nic.mode, "none", nic.encap),
            params=(("flow_steering_mode", nic.steering),),
            vfs=tuple(dataclasses.replace(one.vf, netdev=one.own.name if one.own else None) for one in nic.vfs),
        )

    def _netdevs(self, nic: Nic) -> list[Netdev]:
        switch = f"{SWITCH_ID}{nic.address[-1]}" if nic.mode == "switchdev" else None
        number = int(nic.address[-1])

        def netdev(device: Device, port: str | None, switch_id: str | None) -> Netdev:
            features = device.offload if switch_id or device is nic.uplink else None
            return Netdev(
                1,
                device.name,
                mtu=device.mtu,
                up=device.up,
                switch_id=switch_id,
                port_name=port,
                hw_tc_offload=features,
            )

        found = [netdev(nic.uplink, f"p{number}", switch)]
        for one in nic.vfs:
            if one.own is not None:
                found.append(netdev(one.own, None, None))
            if one.representor is not None:
                found.append(netdev(one.representor, f"pf{number}vf{one.vf.index}", switch))
        return found

    # ---- doing

    def do(self, step: Step) -> None:
        """Do a step."""
        self.done += 1
        if self.done == self.fail:
            raise StepError("it was told to fail")
        match step:
            case SetVfs():
                self._set_vfs(self._nic(step.pf), step.count)
            case SetDrivers():
                self._bind(self._nic(step.pf), step)
            case SetEswitch():
                self._eswitch(self._nic(step.pf), step)
            case SetParam():
                nic = self._nic(step.pf)
                if nic.mode != "legacy":
                    raise StepError("steering cannot change while the eSwitch offloads")
                nic.steering = step.word
            case SetPorts():
                for one in step.ports:
                    device = self._device(one.port)
                    device.name = one.name or device.name
                    device.up = device.up if one.up is None else one.up
                    device.mtu = one.mtu or device.mtu
                    device.offload = device.offload if one.offload is None else one.offload
            case SetVfAttributes():
                self._attributes(self._nic(step.pf), step)
            case SetOption():
                self.options.pop(step.key, None)
                if step.value is not None:
                    self.options[step.key] = step.value
            case RestartSwitch():
                self.restarts += 1
                self.in_force = {k: v for k, v in self.options.items() if k in ("hw-offload", "tc-policy")}
                self._start()
            case SetBridge():
                if step.there:
                    self.bridges.setdefault(step.name, [])
                    self._plug()
                else:
                    for name in (step.name, *self.bridges.pop(step.name, [])):
                        self._unplug(name)
            case AddPorts():
                for port in step.ports:
                    self.bridges[step.bridge].append(self._device(port).name)
                self._plug()
            case DeletePorts():
                for name in step.names:
                    self.bridges[step.bridge].remove(name)
                    self._unplug(name)
            case CleanTc():
                self.filters -= set(step.devices)
                self.qdiscs -= set(step.devices) - set(step.kept) - self.others

            case AddIngress():
                self.qdiscs |= {one.netdev for one in step.qdiscs}
                self.others |= {one.netdev for one in step.filters}

    def _nic(self, address: str) -> Nic:
        return next(nic for nic in self.nics if nic.address == address)

    def _device(self, port: PortRef) -> Device:
        host = self.look()
        pf = host.pf(port.pf)
        netdev = find(host, pf, port) if pf else None
        for nic in self.nics:
            for device in (nic.uplink, *(d for f in nic.vfs for d in (f.representor, f.own) if d is not None)):
                if netdev is not None and device.name == netdev.name:
                    return device
        raise StepError(f"{port.shown} is not there")

    def _set_vfs(self, nic: Nic, count: int) -> None:
        if count == len(nic.vfs):
            return
        if count and nic.vfs:
            raise StepError("Device or resource busy")
        for one in nic.vfs:
            if one.representor is not None:
                self._gone(one.representor)
        nic.vfs = [Function(Vf(n, f"{nic.address[:-1]}{8 + n}")) for n in range(count)]
        for one in nic.vfs:
            if nic.autoprobe:
                self._probe(nic, one, DRIVER)
            if nic.mode == "switchdev":
                self._represent(nic, one)

    def _probe(self, nic: Nic, one: Function, driver: str | None) -> None:
        one.vf = dataclasses.replace(one.vf, driver=driver)
        one.own = Device(f"{nic.uplink.name}v{one.vf.index}") if driver == DRIVER else None
        one.taken = one.vf.mac

    def _represent(self, nic: Nic, one: Function) -> None:
        one.representor = Device(f"eth{nic.made}", offload=True)
        nic.made += 1

    def _gone(self, device: Device) -> None:
        self.qdiscs.discard(device.name)
        self.filters.discard(device.name)

    def _bind(self, nic: Nic, step: SetDrivers) -> None:
        if len(step.drivers) != len(nic.vfs):
            raise StepError(f"there are {len(nic.vfs)} VFs, not {len(step.drivers)}")
        for one, (driver, override) in zip(nic.vfs, step.drivers, strict=True):
            one.vf = dataclasses.replace(one.vf, driver_override=override)
            if one.vf.driver != driver:
                self._probe(nic, one, driver)

    def _eswitch(self, nic: Nic, step: SetEswitch) -> None:
        if step.attribute == "encap_mode":
            nic.encap = step.word
        if step.attribute != "mode" or step.word == nic.mode:
            return
        ports = {nic.uplink.name, *(one.representor.name for one in nic.vfs if one.representor)}
        if self.filters & ports:
            raise StepError("E-Switch is busy")
        if any(one.vf.driver == DRIVER for one in nic.vfs) or (self.no_vfs_while_switching and nic.vfs):
            raise StepError("Operation not supported")
        nic.mode = step.word
        nic.made = 0
        for one in nic.vfs:
            if one.representor is not None:
                self._gone(one.representor)
            one.representor = None
            if nic.mode == "switchdev":
                self._represent(nic, one)

    def _attributes(self, nic: Nic, step: SetVfAttributes) -> None:
        for wanted in step.vfs:
            one = nic.vfs[wanted.index]
            same = {name: getattr(wanted, name) for name in ("mac", "rates")}
            if nic.mode == "legacy":
                same |= {name: getattr(wanted, name) for name in ("vlan", "qos", "link_state", "trust", "spoofchk")}
            one.vf = dataclasses.replace(one.vf, **same)

    # ---- Open vSwitch's own doing

    def _start(self) -> None:
        """A switch that starts takes away whatever it finds at the ingress of its ports."""
        ports = {name for bridge, names in self.bridges.items() for name in (bridge, *names)}
        for kept in (self.qdiscs, self.filters, self.others):
            kept -= ports
        self._plug()

    def _plug(self) -> None:
        """A switch that offloads has an ingress qdisc, and here at once a flow, on each of its ports."""
        if self.in_force.get("hw-offload") == "true":
            ports = {name for bridge, names in self.bridges.items() for name in (bridge, *names)}
            self.others -= ports - self.qdiscs
            self.qdiscs |= ports
            self.filters |= ports

    def _unplug(self, name: str) -> None:
        """It takes the qdisc off a port that leaves, if it offloads."""
        if self.in_force.get("hw-offload") == "true":
            self.qdiscs.discard(name)
            self.filters.discard(name)
