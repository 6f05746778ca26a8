# SPDX-License-Identifier: Apache-2.0
"""What is set up now, again after each boot: a systemd unit that sets the NICs up before Open vSwitch starts, and a
udev rule that keeps names and NetworkManager off.

Only NICs need it: Open vSwitch's database remembers its options, bridges and ports by itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import string
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asap2.host.inventory import Host, Netdev, Pf
from asap2.host.setup.journal import DIRECTORY
from asap2.host.setup.target import NO_MAC, STEERING, RefusedError
from asap2.host.setup.wanted import Nic, VfWanted, Wanted, as_toml

CONFIG = DIRECTORY / "boot.toml"
UNIT = Path("/etc/systemd/system/asap2-host.service")
ENABLED = Path("/etc/systemd/system/multi-user.target.wants/asap2-host.service")
RULES = Path("/etc/udev/rules.d/82-asap2-host.rules")
"""After 80-net-setup-link.rules, whose NAME it overrides."""
COUNTED = re.compile(r"eth\d+", re.ASCII)
"""Names that the kernel gives by counting. udev cannot keep them: it would collide with those given meanwhile."""
LATER = ("network-pre.target", "ovs-vswitchd.service", "openvswitch-switch.service", "openvswitch.service")
"""What must find the representors there: a switch that starts, and whoever configures networks."""
VOLATILE = ("/tmp", "/var/tmp", "/run", "/var/run", "/dev/shm")
"""Where systemd-tmpfiles(8) cleans up, or nothing stays."""
HOMES = ("/home", "/root", "/var/home")
USERS = ("NetworkManager.service", "libvirtd.service", "nova-compute.service", "openstack-nova-compute.service")


def wanted_now(host: Host) -> Wanted:
    """What *host* has, as a configuration; RefusedError when none of its NICs is in switchdev mode."""
    nics = tuple(_nic(host, pf) for pf in host.pfs if pf.switchdev)
    if not nics:
        raise RefusedError("no NIC is in switchdev mode, so there is nothing to keep; `asap2 host setup` comes first")
    return Wanted(nic=nics)


def _nic(host: Host, pf: Pf) -> Nic:
    representors = dict(host.representors(pf))
    steering = dict(pf.params).get(STEERING)
    encap = pf.eswitch.encap_mode if pf.eswitch else None
    whole = len(representors) == pf.num_vfs
    return Nic(
        pf=pf.address,
        vfs=pf.num_vfs or None,
        encap=None if encap is None else encap != "none",
        steering="smfs" if steering == "smfs" else "dmfs" if steering == "dmfs" else None,
        representors=any(netdev.up for netdev in representors.values()),
        representor_names=tuple(representors[n].name for n in range(pf.num_vfs)) if whole else (),
        vf=tuple(
            VfWanted(vf.index, None if vf.mac == NO_MAC else vf.mac, vf.trust or None, vf.spoofchk or None)
            for vf in pf.vfs
            if vf.mac != NO_MAC or vf.trust or vf.spoofchk
        ),
    )


def files(host: Host) -> dict[Path, str]:
    """The files to write, with their contents."""
    note = "# Written by `asap2 host persist`; `asap2 host persist --remove` takes it away.\n"
    return {
        CONFIG: note + as_toml(wanted_now(host)),
        UNIT: note + unit(host),
        RULES: note + "".join(f"{line}\n" for line in rules(host)),
    }


def unit(host: Host, command: str = f"{sys.executable} -m asap2.cli.main") -> str:
    """The systemd unit; *command* is how to run asap2."""
    devices = [
        f"sys-subsystem-net-devices-{escaped(pf.netdev)}.device" for pf in host.pfs if pf.switchdev and pf.netdev
    ]
    service = host.openvswitch.service
    wants = [*devices, "network-pre.target", *([f"{service}.service"] if service else [])]
    return f"""[Unit]
Description=NICs ready for hardware offload: VFs, eSwitch mode, representors
DefaultDependencies=no
Conflicts=shutdown.target
After=local-fs.target systemd-modules-load.service {" ".join(devices)}
Before={" ".join((*LATER, *USERS, "shutdown.target"))}
Wants={" ".join(wants)}
ConditionPathExists={CONFIG}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={command} host setup --nic-only --force --config {CONFIG}
TimeoutStartSec=5min

[Install]
WantedBy=multi-user.target
"""


def rules(host: Host) -> Iterator[str]:
    """The udev rules (udev(7))."""
    for pf in host.pfs:
        uplink = host.uplink(pf)
        if not pf.switchdev or uplink is None:
            continue
        yield f"# {pf.name}: its set-up starts with it, however late it comes"
        wants = f'TAG+="systemd", ENV{{SYSTEMD_WANTS}}+="{UNIT.name}"'
        yield f'SUBSYSTEM=="net", ACTION=="add", KERNELS=="{pf.address}", {wants}'
        yield f"# {pf.name}: NetworkManager leaves the representors alone, and they keep their names"
        switch = f'SUBSYSTEM=="net", ACTION=="add", ATTR{{phys_switch_id}}=="{uplink.switch_id}"'
        yield f'{switch}, ATTR{{phys_port_name}}=="*vf*", ENV{{NM_UNMANAGED}}="1"'
        yield from (_name_rule(switch, netdev) for _, netdev in host.representors(pf))


def _name_rule(switch: str, netdev: Netdev) -> str:
    if COUNTED.fullmatch(netdev.name):
        return f"# {netdev.port_name} is {netdev.name}: a name that the kernel counts, so {UNIT.name} sees to it"
    return f'{switch}, ATTR{{phys_port_name}}=="{netdev.port_name}", NAME="{netdev.name}"'


def escaped(name: str) -> str:
    """*name* as part of a unit's name (systemd.unit(5), "String escaping for inclusion in unit names")."""
    plain = f"{string.ascii_letters}{string.digits}:_."
    parts = [c if c in plain and not (place == 0 and c == ".") else f"\\x{ord(c):02x}" for place, c in enumerate(name)]
    return "".join(parts)


def write(host: Host) -> list[Path]:
    """Write the files and enable the unit; what was written."""
    written = []
    for path, content in files(host).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_text(content)
        new.chmod(0o644)
        new.rename(path)
        written.append(path)
    ENABLED.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(ENABLED):
        ENABLED.symlink_to(UNIT)
    _reload()
    return [*written, ENABLED]


def doubt(program: str = sys.executable, package: str = __file__) -> str | None:
    """Why the unit may not find its program at boot: the Python *program*, or the *package* that it runs, is where it
    does not last, or not for all. None if there is no doubt."""
    for path in map(Path, (program, package)):
        for place in VOLATILE:
            if path.is_relative_to(place):
                return f"{path} is below {place}, which does not survive a reboot: the NICs will not be set up"
    for path in map(Path, (program, package)):
        for place in HOMES:
            if path.is_relative_to(place):
                return f"{path} is below {place}, which may not be mounted at boot, and whose owner becomes root by it"
    return None


@dataclass(frozen=True, slots=True)
class Written:
    """A file and its contents ``before`` and ``after``; None where it is not there. A link's are where it leads to."""

    path: str
    before: str | None
    after: str | None


def writes(host: Host) -> list[Written]:
    """What :func:`write` would change."""
    wanted = {**files(host), ENABLED: str(UNIT)}
    found = [Written(str(path), _content(path), content) for path, content in wanted.items()]
    return [one for one in found if one.before != one.after]


def removes() -> list[Written]:
    """What :func:`remove` would change."""
    return [Written(str(path), _content(path), None) for path in there()]


def _content(path: Path) -> str | None:
    if path.is_symlink():
        return os.readlink(path)
    return path.read_text(errors="replace") if path.exists() else None


def there() -> list[Path]:
    """What :func:`write` wrote, as far as it is there."""
    return [path for path in (ENABLED, UNIT, RULES, CONFIG) if os.path.lexists(path)]


def remove() -> list[Path]:
    """Take away what :func:`write` wrote; what was there."""
    gone = there()
    for path in gone:
        path.unlink()
    for path in (DIRECTORY, RULES.parent):
        with contextlib.suppress(OSError):
            path.rmdir()
    if gone:
        _reload()
    return gone


def _reload() -> None:
    """Tell systemd and udev that files changed, where they run."""
    for command in (["systemctl", "daemon-reload"], ["udevadm", "control", "--reload"]):
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(command, capture_output=True)
