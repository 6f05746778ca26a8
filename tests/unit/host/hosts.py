# SPDX-License-Identifier: Apache-2.0
"""Hosts to judge: a hypervisor with a ConnectX-5, before and after it was set up."""

from __future__ import annotations

import dataclasses

from asap2.host.inventory import (
    Bridge,
    Eswitch,
    Filter,
    Host,
    Interface,
    Netdev,
    OpenVSwitch,
    Pf,
    Platform,
    Port,
    Qdisc,
    Trial,
    Vf,
)

ADDRESS = "0000:03:00.0"
PF = "enp3s0f0"
SWITCH_ID = "00c49f00039a0dec"
UFID = "d3bbfb4f09cb4344913c0f266a6d9c1b"


def platform() -> Platform:
    """A machine of today."""
    return Platform("6.1.0-13-amd64", "6.1.0", iommu_groups=40, cpus=8, governors=("performance",))


def fresh() -> Host:
    """A NIC in legacy mode without VFs, and Open vSwitch as it is after its installation."""
    pf = Pf(
        address=ADDRESS,
        vendor=0x15B3,
        device=0x1017,
        driver="mlx5_core",
        netdev=PF,
        total_vfs=8,
        numa_node=0,
        local_cpus="0-7",
        link_speed=8.0,
        link_width=16,
        max_link_speed=8.0,
        max_link_width=16,
        firmware="16.35.4030",
        eswitch=Eswitch("legacy", "none", "basic"),
        params=(("flow_steering_mode", "dmfs"),),
        irqs=(("40", "0"), ("41", "1")),
    )
    uplink = Netdev(2, PF, "ec:0d:9a:00:00:00", 1500, parent=ADDRESS, port_name="p0", hw_tc_offload=False)
    switch = OpenVSwitch("3.1.0", True, True, "3.1.0", flows=0, service="openvswitch-switch")
    return Host("hv1", "2024-01-01T00:00:00+00:00", platform(), (pf,), (uplink,), openvswitch=switch)


def representor(number: int, name: str | None = None) -> Netdev:
    """The representor of VF *number*, up, with the feature on."""
    return Netdev(
        10 + number,
        name or f"eth{number}",
        mtu=1500,
        up=True,
        switch_id=SWITCH_ID,
        port_name=f"pf0vf{number}",
        hw_tc_offload=True,
        name_assigned=4,
    )


def port(name: str, kind: str = "") -> Port:
    """A port with one interface."""
    return Port(name, interfaces=(Interface(name, kind, ofport=1),))


def offloading(vfs: int = 2) -> Host:
    """The same host, set up: representors and uplink in br-int, hw-offload in force, a flow in hardware."""
    host = fresh()
    functions = tuple(Vf(n, f"0000:03:00.{2 + n}", "mlx5_core", netdev=f"{PF}v{n}") for n in range(vfs))
    pf = dataclasses.replace(host.pfs[0], num_vfs=vfs, vfs=functions, eswitch=Eswitch("switchdev", "none", "basic"))
    uplink = dataclasses.replace(host.netdevs[0], up=True, carrier=True, switch_id=SWITCH_ID, hw_tc_offload=True)
    representors = tuple(representor(n) for n in range(vfs))
    own = tuple(Netdev(20 + n, f"{PF}v{n}", mtu=1500, parent=f"0000:03:00.{2 + n}") for n in range(vfs))
    names = [PF, *(one.name for one in representors)]
    bridge = Bridge("br-int", "system", (port("br-int", "internal"), *(port(name) for name in names)), 1)
    return dataclasses.replace(
        host,
        pfs=(pf,),
        netdevs=(uplink, *representors, *own),
        qdiscs=tuple(Qdisc(name, "ingress") for name in names),
        filters=(Filter("eth0", "flower", 2, 0x0800, 1, in_hw=True, cookie=UFID, packets=9, bytes=900),),
        openvswitch=dataclasses.replace(
            host.openvswitch,
            other_config=(("hw-offload", "true"),),
            bridges=(bridge,),
            offloaded_flows=1,
            lookups=(7, 3, 0),
        ),
        trials=(Trial("eth0", "drop"),),
    )


def with_pf(host: Host, **changes: object) -> Host:
    """*host*, its first PF changed."""
    return dataclasses.replace(host, pfs=(dataclasses.replace(host.pfs[0], **changes), *host.pfs[1:]))  # type: ignore[arg-type]


def with_switch(host: Host, **changes: object) -> Host:
    """*host*, its Open vSwitch changed."""
    return dataclasses.replace(host, openvswitch=dataclasses.replace(host.openvswitch, **changes))  # type: ignore[arg-type]


def with_platform(host: Host, **changes: object) -> Host:
    """*host*, its platform changed."""
    return dataclasses.replace(host, platform=dataclasses.replace(host.platform, **changes))  # type: ignore[arg-type]


def with_netdev(host: Host, name: str, /, **changes: object) -> Host:
    """*host*, its network device called *name* changed."""
    changed = (dataclasses.replace(one, **changes) if one.name == name else one for one in host.netdevs)  # type: ignore[arg-type]
    return dataclasses.replace(host, netdevs=tuple(changed))


def without_netdev(host: Host, name: str) -> Host:
    """*host* without the network device called *name*."""
    return dataclasses.replace(host, netdevs=tuple(one for one in host.netdevs if one.name != name))
