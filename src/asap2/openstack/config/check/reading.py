# SPDX-License-Identifier: Apache-2.0
"""The files that are to be checked, and whose they are: nova's, neutron's, or devstack's local.conf with both."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from asap2.errors import UsageError

USUAL = (
    "/etc/nova/nova.conf",
    "/etc/nova/nova-compute.conf",
    "/etc/nova/nova-cpu.conf",
    "/etc/nova/nova.conf.d",
    "/etc/neutron/neutron.conf",
    "/etc/neutron/plugins/ml2/ml2_conf.ini",
    "/etc/neutron/plugins/ml2/openvswitch_agent.ini",
    "/etc/neutron/neutron_ovn_metadata_agent.ini",
    "/etc/neutron/neutron.conf.d",
)
"""Where services read them, when none are named."""
ENDINGS = (".conf", ".ini")
NEUTRON_NAMES = ("neutron", "ml2", "openvswitch_agent", "l3_agent", "dhcp_agent", "metadata_agent", "sriov")
NEUTRON_SECTIONS = {"ml2", "ovs", "agent", "securitygroup", "ml2_type_vlan", "ml2_type_vxlan", "ml2_type_flat"}
NOVA_SECTIONS = {"pci", "filter_scheduler", "libvirt", "compute", "api_database", "placement", "vnc"}
META = re.compile(r"\[\[\s*([^|\]]+)\|([^\]]*)\]\]")
ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=(.*)")
VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
DESTINATIONS = {
    "NOVA_CONF": "nova",
    "NOVA_CPU_CONF": "nova",
    "NEUTRON_CONF": "neutron",
    "Q_PLUGIN_CONF_FILE": "neutron",
    "NEUTRON_CORE_PLUGIN_CONF": "neutron",
}
"""Files that devstack's meta-sections write to, by the variable that names them."""
PRESET = {
    "NOVA_FILTERS": "ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter,ServerGroupAntiAffinityFilter,"
    "ServerGroupAffinityFilter,SameHostFilter,DifferentHostFilter"
}
"""devstack's own (stable/2025.1, lib/nova), which local.conf cannot change."""
VARIABLES = {
    "OVS_BRIDGE_MAPPINGS": ("ovs", "bridge_mappings"),
    "ML2_VLAN_RANGES": ("ml2_type_vlan", "network_vlan_ranges"),
    "Q_ML2_PLUGIN_MECHANISM_DRIVERS": ("ml2", "mechanism_drivers"),
    "Q_ML2_PLUGIN_TYPE_DRIVERS": ("ml2", "type_drivers"),
    "Q_ML2_TENANT_NETWORK_TYPE": ("ml2", "tenant_network_types"),
    "OVS_DATAPATH_TYPE": ("ovs", "datapath_type"),
    "TUNNEL_ENDPOINT_IP": ("ovs", "local_ip"),
}
"""devstack's variables that become neutron's options as they are."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A value and where it stands; *opaque*: a variable in it is not known here."""

    path: str
    line: int
    section: str
    key: str
    value: str
    opaque: bool = False


@dataclass(frozen=True, slots=True)
class Devstack:
    """A local.conf: variables with their lines, and lines that are of no use any more."""

    path: str
    variables: dict[str, tuple[int, str]]
    plugins: tuple[tuple[int, str], ...] = ()
    unread: tuple[tuple[int, str], ...] = ()


@dataclass(slots=True)
class Reading:
    """All: texts by service and path, what is assigned elsewhere by service, and local.conf files."""

    texts: dict[str, dict[str, str]] = field(default_factory=dict)
    assignments: dict[str, list[Assignment]] = field(default_factory=dict)
    devstacks: list[Devstack] = field(default_factory=list)

    @property
    def services(self) -> list[str]:
        """Those whose settings there are."""
        return [one for one in ("nova", "neutron") if one in self.texts or one in self.assignments]


def read(names: list[str]) -> Reading:
    """The files *names*, directories with all of theirs; the usual ones when there are none."""
    found = Reading()
    for path in paths(names):
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise UsageError(f"{path} cannot be read: {reason}") from None
        if path.name == "local.conf" or META.search(text):
            _devstack(str(path), text, found)
        else:
            found.texts.setdefault(service_of(path, text), {})[str(path)] = text
    return found


def paths(names: list[str]) -> list[Path]:
    """The files; UsageError for what is not there."""
    found: list[Path] = []
    for path in map(Path, names or USUAL):
        if path.is_dir():
            found += sorted(one for one in path.rglob("*") if one.suffix in ENDINGS and one.is_file())
        elif path.exists():
            found.append(path)
        elif names:
            raise UsageError(f"there is no {path}")
    if not found:
        raise UsageError(
            f"there is nothing to check: {' '.join(names) if names else 'name the files of nova and neutron'}"
        )
    return list(dict.fromkeys(found))


def service_of(path: Path, text: str) -> str:
    """Whose file it is: by its name, its directories, or its sections."""
    if path.name.startswith("nova"):
        return "nova"
    if path.name.startswith(NEUTRON_NAMES):
        return "neutron"
    sections = set(re.findall(r"^\[([^\]]+)\]", text, re.M))
    scores = {"nova": len(sections & NOVA_SECTIONS), "neutron": len(sections & NEUTRON_SECTIONS)}
    if scores["nova"] == scores["neutron"]:
        for service in scores:
            if service in path.parts:
                return service
        raise UsageError(f"{path} does not tell whether it is nova's or neutron's: its name and sections are neither's")
    return max(scores, key=lambda one: scores[one])


# ---- devstack


def _devstack(path: str, text: str, found: Reading) -> None:
    variables: dict[str, tuple[int, str]] = {}
    plugins, unread = [], []
    place, section = "", ""
    for number, line in enumerate(text.splitlines(), 1):
        meta = META.match(line)
        if meta:
            place, section = meta[2].strip(), ""
        elif not line.strip() or line.lstrip().startswith("#"):
            continue
        elif place in ("localrc", ""):
            assigned = ASSIGNMENT.match(line.strip())
            if assigned:
                variables[assigned[1]] = (number, expanded(_word(assigned[2]), variables)[0])
            elif line.split()[0] == "enable_plugin":
                plugins.append((number, line.split()[1] if len(line.split()) > 1 else ""))
        else:
            service = DESTINATIONS.get(place.lstrip("/").strip("${}"))
            if service is None:
                continue
            if line.startswith("["):
                section = line.strip().strip("[]")
            elif "=" in line:
                key, _, value = line.partition("=")
                said, opaque = expanded(value.strip(), variables)
                try:
                    said = unquoted(said)
                except ValueError:
                    unread.append((number, line.strip()))
                    continue
                one = Assignment(path, number, section, key.strip(), said, opaque)
                found.assignments.setdefault(service, []).append(one)
    for name, (section, key) in VARIABLES.items():
        if name in variables:
            number, value = variables[name]
            one = Assignment(path, number, section, key, value, "$" in value)
            found.assignments.setdefault("neutron", []).append(one)
    if {"PHYSICAL_NETWORK", "OVS_PHYSICAL_BRIDGE"} <= variables.keys() and "OVS_BRIDGE_MAPPINGS" not in variables:
        number, network = variables["PHYSICAL_NETWORK"]
        value = f"{network}:{variables['OVS_PHYSICAL_BRIDGE'][1]}"
        found.assignments.setdefault("neutron", []).append(Assignment(path, number, "ovs", "bridge_mappings", value))
    found.devstacks.append(Devstack(path, variables, tuple(plugins), tuple(unread)))


def _word(text: str) -> str:
    """A shell word's value, as far as quotes are concerned."""
    try:
        return " ".join(shlex.split(text, comments=True))
    except ValueError:
        return text


def unquoted(value: str) -> str:
    """A value of a post-config section: devstack evaluates it between double quotes, its backslashes read away before
    (inc/meta-config). ValueError for quotes that do not close."""
    return "".join(shlex.split(f'"{value}"'.replace("\\", "")))


def expanded(value: str, variables: dict[str, tuple[int, str]]) -> tuple[str, bool]:
    """*value* with the variables in it, and whether there was one that is not known here."""
    unknown = False

    def put(found: re.Match[str]) -> str:
        nonlocal unknown
        name = found[1] or found[2]
        if name in variables:
            return variables[name][1]
        unknown = unknown or name not in PRESET
        return PRESET.get(name, found[0])

    return VARIABLE.sub(put, value), unknown
