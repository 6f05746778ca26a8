# SPDX-License-Identifier: Apache-2.0
"""The virt driver that nova-compute loads as ``compute_driver = asap2.Asap2Driver``.

It does for its guests what nova's libvirt driver and libvirt do for a virtual machine with a ``direct`` port: os-vif
puts the VF's representor into Open vSwitch, the VF gets its MAC and VLAN from the physical function, and is handed
over. It uses sysfs, ``ip`` and os-vif, as it would on a real NIC, and knows nothing of the software NIC.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import eventlet
import nova.conf
import os_vif
from nova import exception
from nova.compute import power_state
from nova.network import os_vif_util
from nova.objects import fields
from nova.virt import driver, event, hardware
from oslo_log import log as logging
from oslo_serialization import jsonutils

from asap2.openstack.virt import pci
from asap2.openstack.virt.guest import Guest, Guests, Wanted

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

WATCH_SECONDS = 2
"""How often it looks whether a guest has ended by itself."""
DIRECT = "direct"


class Asap2Driver(driver.ComputeDriver):
    """Guests are namespaces; only ``direct`` ports are known."""

    capabilities = {
        **driver.ComputeDriver.capabilities,
        "supports_attach_interface": True,
        "supports_image_type_raw": True,
        "supports_image_type_qcow2": True,
    }

    def __init__(self, virtapi: Any) -> None:
        super().__init__(virtapi)
        self.guests = Guests(Path(CONF.instances_path))

    def init_host(self, host: str) -> None:
        """Get ready; guests that run go on."""
        os_vif.initialize()
        self.guests.directory.mkdir(parents=True, exist_ok=True)
        self._known_running = {guest.uuid for guest in self.guests.all() if guest.running}
        LOG.info("%s guests of %s run already", len(self._known_running), host)
        eventlet.spawn_n(self._watch)

    def _watch(self) -> None:
        """Tell nova of guests that ended by themselves."""
        while True:
            eventlet.sleep(WATCH_SECONDS)
            for guest in self.guests.all():
                if guest.pid and not guest.running and guest.uuid in self._known_running:
                    self._known_running.discard(guest.uuid)
                    LOG.warning("the guest %s has ended by itself", guest.name)
                    self.emit_event(event.LifecycleEvent(guest.uuid, event.EVENT_LIFECYCLE_STOPPED))

    # What there is

    def get_info(self, instance: Any, use_cache: bool = True) -> Any:  # noqa: ARG002
        """The power state, as it is now."""
        guest = self._find(instance)
        if guest.running:
            return hardware.InstanceInfo(state=power_state.RUNNING, internal_id=guest.name)
        return hardware.InstanceInfo(state=power_state.SHUTDOWN)

    def instance_exists(self, instance: Any) -> bool:
        """Whether there is a guest for *instance*."""
        return self.guests.find(instance.uuid) is not None

    def get_num_instances(self) -> int:
        """How many guests there are."""
        return len(self.guests.all())

    def list_instances(self) -> list[str]:
        """Nova's names of all guests."""
        return [guest.instance for guest in self.guests.all()]

    def list_instance_uuids(self) -> list[str]:
        """The uuids of all guests."""
        return [guest.uuid for guest in self.guests.all()]

    def get_host_ip_addr(self) -> str:
        """The host's management address."""
        return str(CONF.my_ip)

    def get_available_nodes(self, refresh: bool = False) -> list[str]:  # noqa: ARG002
        """The host is its only node."""
        return [CONF.host]

    def get_host_uptime(self) -> str:
        """What uptime(1) prints."""
        return pci.run("uptime")

    def get_available_resource(self, nodename: str) -> dict[str, Any]:
        """What the host has, and its PCI functions."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
        disk = os.statvfs(self.guests.directory)
        total, free = (blocks * disk.f_frsize >> 30 for blocks in (disk.f_blocks, disk.f_bavail))
        return {
            "vcpus": os.cpu_count() or 1,
            "vcpus_used": 0,
            "memory_mb": memory,
            "memory_mb_used": 0,
            "local_gb": total,
            "local_gb_used": total - free,
            "disk_available_least": free,
            "hypervisor_type": "asap2",
            "hypervisor_version": 1,
            "hypervisor_hostname": nodename,
            "cpu_info": "",
            "supported_instances": [
                (fields.Architecture.canonicalize(platform.machine()), fields.HVType.LXC, fields.VMMode.EXE)
            ],
            "numa_topology": None,
            "pci_passthrough_devices": jsonutils.dumps(pci.inventory()),
        }

    def update_provider_tree(self, provider_tree: Any, nodename: str, allocations: Any = None) -> None:  # noqa: ARG002
        """Tell placement what the host has. A guest is a few processes, so any number shares the host's memory."""
        resources = self.get_available_resource(nodename)
        ratios = self._get_allocation_ratios(provider_tree.data(nodename).inventory)
        inventory = {}
        for name, amount in (
            ("VCPU", resources["vcpus"]),
            ("MEMORY_MB", resources["memory_mb"]),
            ("DISK_GB", max(1, resources["local_gb"])),
        ):
            inventory[name] = {
                "total": amount,
                "min_unit": 1,
                "max_unit": amount,
                "step_size": 1,
                "reserved": 0,
                "allocation_ratio": ratios[name],
            }
        provider_tree.update_inventory(nodename, inventory)

    # A guest's life

    def spawn(
        self,
        context: Any,  # noqa: ARG002
        instance: Any,
        image_meta: Any,  # noqa: ARG002
        injected_files: Any,  # noqa: ARG002
        admin_password: Any,  # noqa: ARG002
        allocations: Any,  # noqa: ARG002
        network_info: Any = None,
        block_device_info: Any = None,  # noqa: ARG002
        power_on: bool = True,
        accel_info: Any = None,  # noqa: ARG002
    ) -> None:
        """Make the guest, with all its VFs; when that fails, everything is given back."""
        vifs = list(network_info or [])
        self._check(instance, vifs)
        events = [("network-vif-plugged", vif["id"]) for vif in vifs if vif.get("active", True) is False]
        try:
            with self.virtapi.wait_for_instance_event(
                instance,
                events if power_on else [],
                deadline=CONF.vif_plugging_timeout,
                error_callback=self._plugging_failed,
            ):
                self.plug_vifs(instance, vifs)
                guest = self.guests.new(instance.uuid, instance.name, instance.hostname or instance.name)
                if power_on:
                    self._run(guest, vifs)
        except eventlet.timeout.Timeout:
            self._give_back(instance, vifs)
            raise exception.VirtualInterfaceCreateException() from None
        except Exception:
            LOG.exception("the guest did not start; all is given back", instance=instance)
            self._give_back(instance, vifs)
            raise

    def destroy(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        block_device_info: Any = None,
        destroy_disks: bool = True,
        destroy_secrets: bool = True,
    ) -> None:
        """End the guest, give its VFs back to the host and take the representors out of Open vSwitch."""
        guest = self.guests.find(instance.uuid)
        if guest:
            self._stop(guest)
        self.cleanup(context, instance, network_info, block_device_info, destroy_disks, destroy_secrets=destroy_secrets)

    def cleanup(
        self,
        context: Any,  # noqa: ARG002
        instance: Any,
        network_info: Any,
        block_device_info: Any = None,  # noqa: ARG002
        destroy_disks: bool = True,
        migrate_data: Any = None,  # noqa: ARG002
        destroy_vifs: bool = True,
        destroy_secrets: bool = True,  # noqa: ARG002
    ) -> None:
        """Take away what a guest that does not run any more has left."""
        if destroy_vifs:
            self.unplug_vifs(instance, network_info)
        guest = self.guests.find(instance.uuid)
        if guest and destroy_disks:
            guest.forget()

    def reboot(
        self,
        context: Any,  # noqa: ARG002
        instance: Any,
        network_info: Any,
        reboot_type: str,  # noqa: ARG002
        block_device_info: Any = None,  # noqa: ARG002
        bad_volumes_callback: Any = None,  # noqa: ARG002
        accel_info: Any = None,  # noqa: ARG002
        share_info: Any = None,  # noqa: ARG002
    ) -> None:
        """Stop the guest and start it again, on the same VFs."""
        self._restart(instance, network_info)

    def power_off(self, instance: Any, timeout: int = 0, retry_interval: int = 0) -> None:  # noqa: ARG002
        """End the guest; its VFs go back to the host until it runs again."""
        self._stop(self._find(instance))

    def power_on(
        self,
        context: Any,  # noqa: ARG002
        instance: Any,
        network_info: Any,
        block_device_info: Any = None,  # noqa: ARG002
        accel_info: Any = None,  # noqa: ARG002
        share_info: Any = None,  # noqa: ARG002
    ) -> None:
        """Start a guest that does not run."""
        self._restart(instance, network_info)

    def _restart(self, instance: Any, network_info: Any) -> None:
        guest = self._find(instance)
        self._stop(guest)
        self.plug_vifs(instance, network_info)
        self._run(guest, network_info)

    def _run(self, guest: Guest, vifs: Any) -> None:
        with told():
            guest.start()
            for vif in vifs:
                guest.give(wanted(vif))
        self._known_running.add(guest.uuid)

    def _stop(self, guest: Guest) -> None:
        self._known_running.discard(guest.uuid)
        with told():
            guest.stop()

    def _give_back(self, instance: Any, vifs: Any) -> None:
        try:
            self.destroy(None, instance, vifs)
        except Exception:
            LOG.exception("not everything could be given back", instance=instance)

    def _find(self, instance: Any) -> Guest:
        guest = self.guests.find(instance.uuid)
        if guest is None:
            raise exception.InstanceNotFound(instance_id=instance.uuid)
        return guest

    # Interfaces

    def plug_vifs(self, instance: Any, network_info: Any) -> None:
        """Have os-vif put the representors into Open vSwitch."""
        for vif in network_info:
            plugged = os_vif_util.nova_to_osvif_vif(vif)
            if plugged is None:
                raise exception.VirtualInterfacePlugException(
                    f"port {vif['id']} is bound as {vif['type']}, which os-vif does not plug"
                )
            with told():
                os_vif.plug(plugged, os_vif_util.nova_to_osvif_instance(instance))

    def unplug_vifs(self, instance: Any, network_info: Any) -> None:
        """Have os-vif take the representors out again; a port that was not bound has none."""
        for vif in network_info or []:
            if vif["type"] == "ovs" and (vif.get("profile") or {}).get("pci_slot"):
                os_vif.unplug(os_vif_util.nova_to_osvif_vif(vif), os_vif_util.nova_to_osvif_instance(instance))

    def attach_interface(self, context: Any, instance: Any, image_meta: Any, vif: Any) -> None:  # noqa: ARG002
        """Hand a running guest one VF more."""
        guest = self._find(instance)
        self._check(instance, [vif])
        try:
            self.plug_vifs(instance, [vif])
            if guest.running:
                guest.give(wanted(vif))
        except Exception as error:
            LOG.exception("the interface was not attached; all is given back", instance=instance)
            guest.take(vif["id"])
            self.unplug_vifs(instance, [vif])
            raise exception.InterfaceAttachFailed(instance_uuid=instance.uuid) from error

    def detach_interface(self, context: Any, instance: Any, vif: Any) -> None:  # noqa: ARG002
        """Take a VF from a guest."""
        guest = self._find(instance)
        try:
            guest.take(vif["id"])
            self.unplug_vifs(instance, [vif])
        except Exception as error:
            LOG.exception("the interface was not detached", instance=instance)
            raise exception.InterfaceDetachFailed(instance_uuid=instance.uuid) from error

    def _check(self, instance: Any, vifs: Any) -> None:
        for vif in vifs:
            if vif["vnic_type"] != DIRECT or not (vif.get("profile") or {}).get("pci_slot"):
                raise exception.InstanceDeployFailure(
                    f"port {vif['id']} of {instance.display_name} has vnic_type {vif['vnic_type']}: "
                    "a guest of this driver has VFs alone, so create its ports with --vnic-type direct"
                )

    def _plugging_failed(self, event_name: str, instance: Any) -> None:
        LOG.error("neutron says that %s failed", event_name, instance=instance)
        if CONF.vif_plugging_is_fatal:
            raise exception.VirtualInterfaceCreateException()


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Make failures into ones of nova's, whose words reach the user; of others he sees the name alone."""
    try:
        yield
    except (pci.PciError, os_vif.exception.ExceptionBase) as error:
        raise exception.InstanceDeployFailure(str(error)) from error


def wanted(vif: Any) -> Wanted:
    """What the guest is to have for nova's *vif* (nova/network/model.py)."""
    network = vif["network"]
    addresses, gateways = [], []
    for subnet in network["subnets"]:
        prefix = subnet["cidr"].split("/")[1]
        addresses += [f"{each['address']}/{prefix}" for each in subnet["ips"]]
        gateway = subnet["gateway"] and subnet["gateway"]["address"]
        gateways += [gateway] if gateway else []
    return Wanted(
        vif["id"],
        vif["profile"]["pci_slot"],
        vif["address"],
        int((vif.get("details") or {}).get("vlan") or 0),
        network.get_meta("mtu"),
        tuple(addresses),
        tuple(gateways),
    )
