# SPDX-License-Identifier: Apache-2.0
"""Who is behind a representor, as Open vSwitch's database has it: os-vif, libvirt and OVN write it there.

Interface.external_ids: ``iface-id`` is Neutron's port (or libvirt's interface id), ``vm-uuid`` Nova's server as os-vif
names it, ``vm-id`` libvirt's domain, which with Nova is the same (ovs-vswitchd.conf.db(5), os-vif's vif_plug_ovs).
"""

from __future__ import annotations

from dataclasses import dataclass

from asap2.host.inventory import Host


@dataclass(frozen=True, slots=True)
class Attachment:
    """``port`` and ``server`` are UUIDs, ``mac`` and ``status`` ("active", "inactive") the port's; None: not told."""

    representor: str
    port: str | None = None
    server: str | None = None
    mac: str | None = None
    status: str | None = None

    def __str__(self) -> str:
        """For people: ``server 8e2c…, port 4d5f… (fa:16:3e:b9:b8:ce, active)``."""
        named = {"server": self.server, "port": self.port}
        said = ", ".join(one for one in (self.mac, self.status) if one)
        return ", ".join(f"{what} {name}" for what, name in named.items() if name) + (f" ({said})" if said else "")


def attachment(host: Host, netdev: str | None) -> Attachment | None:
    """Who is behind the device called *netdev*; None when Open vSwitch names neither a port nor a server."""
    interface = host.openvswitch.interface(netdev) if netdev else None
    ids = dict(interface.external_ids) if interface else {}
    port, server = ids.get("iface-id"), ids.get("vm-uuid") or ids.get("vm-id")
    if interface is None or not (port or server):
        return None
    return Attachment(interface.name, port, server, ids.get("attached-mac"), ids.get("iface-status"))
