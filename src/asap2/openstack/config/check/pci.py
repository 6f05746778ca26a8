# SPDX-License-Identifier: Apache-2.0
"""Rules about ``[pci] device_spec``: which VFs nova gives to guests, and for which networks."""

from __future__ import annotations

from collections.abc import Iterator

from asap2.host.check.finding import Finding, listed
from asap2.host.inventory import Pf
from asap2.openstack.config.check.answers import Settings, Spec
from asap2.openstack.config.check.findings import fail, ok, warn

ABOUT_PORTS = {
    "capabilities",
    "capability",
    "switchdev",
    "vnic_type",
    "vnic-type",
    "binding_profile",
    "binding:profile",
}
"""Keys of ports that are taken for device_spec's."""
TAGS_OF_TEXT = {"trusted": "no port that asks for a trusted VF", "remote_managed": "no port"}
"""Tags that nova compares as text with "True" or "False", and who then does not get the devices."""


def pci(settings: Settings) -> Iterator[Finding]:
    """What is wrong with the entries, and what the others match."""
    for one in settings.specs:
        if one.refusal is not None:
            why = "nova-compute does not start with it"
            yield fail("device_spec", f"nova refuses {one.text}: {one.refusal}", why, _quoting(one), one.place)
            continue
        yield from _keys(one)
        yield from _tags(one)
        yield from _matches(settings, one)
    yield from _shared(settings)


def _quoting(one: Spec) -> str | None:
    if one.path.endswith("local.conf"):
        return 'devstack evaluates it between double quotes: write "\'"name"\'" for each "name" in the JSON'
    return "write JSON: an object, or a list of objects, in double quotes" if "'" in one.text else None


def _keys(one: Spec) -> Iterator[Finding]:
    for key, like in one.unknown:
        if key.lower() in ABOUT_PORTS:
            why = (
                "the capability is the port's: neutron looks into its binding profile, and nova adds what libvirt tells"
            )
            fix = 'take it out; openstack port create --binding-profile \'{"capabilities": ["switchdev"]}\''
            yield fail("device_spec.switchdev", f"device_spec has no key {key}", why, fix, one.place)
            continue
        why = "nova takes a key that it does not know for a tag of the devices, and says nothing"
        fix = f"is {like} meant?" if like else "take it out"
        yield fail("device_spec.key", f"device_spec has no key {key}", why, fix, one.place)


def _tags(one: Spec) -> Iterator[Finding]:
    data = one.data or {}
    for tag, whose in TAGS_OF_TEXT.items():
        if isinstance(data.get(tag), bool):
            why = f'nova compares it as text with "true" and "false": {whose} gets these devices'
            found = f"{tag} is {str(data[tag]).lower()} without quotes"
            yield fail("device_spec.tag", found, why, f'"{tag}": "{str(data[tag]).lower()}"', one.place)
    if str(data.get("remote_managed", "")).lower() in ("true", "yes", "1", "on"):
        why = "such devices are for ports of the type remote-managed (a DPU with OVN), never for direct ones"
        yield fail("device_spec.tag", "remote_managed is true", why, "take it out", one.place)
    network = data.get("physical_network")
    if "physical_network" not in data:
        why = "without one, nova gives the devices to networks that are tunnels only, and to flavors' PCI aliases"
        fix = '"physical_network": "NAME", or null where tunnels are meant'
        yield warn("device_spec.network", "there is no physical_network", why, fix, one.place)
    elif isinstance(network, str) and network.lower() in ("null", "none", ""):
        why = "nova takes the text for a network's name: for networks that are tunnels it must be null, without quotes"
        found = f'physical_network is the text "{network}"'
        yield fail("device_spec.network", found, why, '"physical_network": null', one.place)


def _matches(settings: Settings, one: Spec) -> Iterator[Finding]:
    if not settings.pfs:
        return
    if not one.matches:
        why = "nova then has no device of it to give to a guest"
        found = f"{one.text} matches no device of {settings.host.hostname if settings.host else 'the host'}"
        yield fail("device_spec.match", found, why, _nearest(settings, one), one.place)
        return
    vfs = [place for address in one.matches if (place := settings.vf(address))]
    whole = [pf for pf in settings.pfs if pf.address in one.matches]
    for pf in whole:
        why = "a port of the type direct-physical gets the whole NIC, with all guests' VFs and the uplink"
        fix = f'"product_id": "{pf.vf_device:04x}" names the VFs alone' if pf.vf_device else None
        yield warn("device_spec.pf", f"it matches the PF {pf.name}, too", why, fix, one.place)
    pfs = list(dict.fromkeys(pf.name for pf, _ in vfs))
    legacy = {pf.name: pf for pf, _ in vfs if not pf.switchdev}
    for pf in legacy.values():
        why = (
            "neutron binds a direct port with the capability switchdev to Open vSwitch, which then finds no representor"
        )
        found = f"{pf.name}, whose VFs it matches, is in {pf.eswitch.mode if pf.eswitch else 'no eSwitch'} mode"
        yield fail("switchdev", found, why, f"asap2 host setup {pf.name}", one.place)
    if vfs:
        numbers = listed([str(vf.index) for _, vf in vfs], 8)
        network = (one.data or {}).get("physical_network")
        where = f"physical network {network}" if network else "networks that are tunnels"
        found = f"VF{'s' if len(vfs) > 1 else ''} {numbers} of {', '.join(pfs)}, for {where}"
        yield ok("device_spec", found, one.place)
    elif whole:
        why = "nova then has no VF to give to a guest's direct port"
        fix = f"asap2 host setup --vfs 4 {whole[0].name}" if not whole[0].vfs else None
        yield fail("device_spec.match", "it matches no VF", why, fix, one.place)


def _nearest(settings: Settings, one: Spec) -> str | None:
    """What of an entry that matches nothing is not so."""
    data = one.data or {}
    devices = {pf.name: pf for pf in settings.pfs}
    name = data.get("devname")
    if name is not None and str(name) not in devices:
        return f"there is no PF {name} here; there is {', '.join(devices)}"
    vendor, product = str(data.get("vendor_id", "")).strip().lower(), str(data.get("product_id", "")).strip().lower()
    vendors = {f"{pf.vendor:04x}" for pf in settings.pfs}
    if vendor and vendor not in vendors:
        return f"vendor_id here is {', '.join(sorted(vendors))}"
    without = [pf for pf in settings.pfs if not pf.vfs]
    if without:
        return f"{without[0].name} has no VFs: asap2 host setup --vfs 4 {without[0].name}"
    products = {f"{pf.vf_device:04x}" for pf in settings.pfs if pf.vf_device}
    if product and products and product not in products:
        of = _pf_of(settings, product)
        whose = f"the PF {of.name}" if of else "none"
        return f"product_id {product} is {whose} here; VFs have {', '.join(sorted(products))}"
    return f"PFs here are at {', '.join(pf.address for pf in settings.pfs)}; a PF's address matches all of its VFs"


def _pf_of(settings: Settings, product: str) -> Pf | None:
    return next((pf for pf in settings.pfs if f"{pf.device:04x}" == product), None)


def _shared(settings: Settings) -> Iterator[Finding]:
    """Devices that two entries match for different networks."""
    first: dict[str, Spec] = {}
    for one in settings.specs:
        network = (one.data or {}).get("physical_network")
        clash: dict[str, list[str]] = {}
        for address in one.matches:
            other = first.setdefault(address, one)
            if other is not one and (other.data or {}).get("physical_network") != network and settings.vf(address):
                clash.setdefault(other.place, []).append(address)
        for place, addresses in clash.items():
            why = "nova takes the first entry that matches a device: this one does not get them"
            found = f"{listed(addresses, 4)} match the entry at {place} already, for another network"
            yield fail("device_spec.shared", found, why, "split the VFs by address", one.place)
