# SPDX-License-Identifier: Apache-2.0
"""The machine and its programs: kernel, iproute2, OpenStack, IOMMU, CPUs, and who else sets up network devices."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from asap2.host.inventory import Pairs, Platform
from asap2.host.kernel.sysfs import SYS, text

COMPONENTS = ("neutron", "nova", "os_vif")
"""Python distributions of OpenStack that take part in offload, normalised (PEP 503, with underscores)."""
PYTHON_DIRECTORIES = (
    "/usr/lib/python3/dist-packages",
    "/usr/lib/python3*/site-packages",
    "/usr/local/lib/python3*/dist-packages",
    "/usr/local/lib/python3*/site-packages",
    "/opt/stack/data/venv/lib/python3*/site-packages",
    "/var/lib/openstack/lib/python3*/site-packages",
    "/openstack/venvs/*/lib/python3*/site-packages",
)
"""Where distributions, DevStack, OpenStack-Helm and OpenStack-Ansible put OpenStack."""
RULE_DIRECTORIES = ("/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d")
NETWORK_MANAGER = Path("/run/NetworkManager")
IOMMU_WORD = re.compile(r"(?:intel_iommu|amd_iommu|iommu|iommu\.passthrough|arm-smmu\.disable_bypass)(?:=\S*)?")
_ABOUT_REPRESENTORS = ("phys_switch_id", "phys_port_name", "hw-tc-offload", "sriov_numvfs")


def platform() -> Platform:
    """The machine and its programs now."""
    processors = [path.name for path in (SYS / "devices/system/cpu").glob("cpu[0-9]*")]
    return Platform(
        kernel=os.uname().release,
        iproute2=iproute2_version(),
        components=components(),
        iommu_groups=_entries(SYS / "kernel/iommu_groups"),
        iommu_words=tuple(word for word in (text(Path("/proc/cmdline")) or "").split() if IOMMU_WORD.fullmatch(word)),
        cpus=len(processors),
        governors=governors(),
        irqbalance=any(Path(path).exists() for path in ("/run/irqbalance.pid", "/run/irqbalance")),
        network_manager=NETWORK_MANAGER.is_dir(),
        udev_rules=tuple(udev_rules()),
    )


def iproute2_version() -> str | None:
    """The version of iproute2; None when there is no ``ip``."""
    try:
        done = subprocess.run(["ip", "-V"], capture_output=True, text=True)
    except OSError:
        return None
    found = re.search(r"iproute2-(?:ss)?([\w.\-]+)", done.stdout)
    return found[1] if found else None


def components() -> Pairs:
    """The parts of OpenStack that are installed, with their versions."""
    found: dict[str, str] = {}
    for pattern in PYTHON_DIRECTORIES:
        for directory in Path("/").glob(pattern.removeprefix("/")):
            for name in COMPONENTS:
                for path in directory.glob(f"{name}-*.*-info"):
                    found[name.replace("_", "-")] = path.name.removeprefix(f"{name}-").rpartition(".")[0].split("-")[0]
    return tuple(sorted(found.items()))


def governors() -> tuple[str, ...]:
    """The frequency governors of the CPUs, each once; none where the CPUs' frequency is not the kernel's to set."""
    policies = (SYS / "devices/system/cpu/cpufreq").glob("policy*/scaling_governor")
    return tuple(sorted({found for path in policies if (found := text(path))}))


def udev_rules() -> Iterator[str]:
    """The rule files that are about representors or set up virtual functions."""
    seen = set()
    for directory in RULE_DIRECTORIES:
        for path in sorted(Path(directory).glob("*.rules")):
            content = text(path) or ""
            if path.name not in seen and any(word in content for word in _ABOUT_REPRESENTORS):
                yield str(path)
            seen.add(path.name)


def network_manager_manages(index: int) -> bool | None:
    """Whether NetworkManager manages the interface with that index; None when it does not say."""
    content = text(NETWORK_MANAGER / "devices" / str(index)) or ""
    found = re.search(r"^managed=(true|false)$", content, re.MULTILINE)
    return found[1] == "true" if found else None


def opened_vfio_groups() -> dict[int, str]:
    """The VFIO groups that processes hold open: group number to "name, pid N"."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            targets = [os.readlink(one) for one in (entry / "fd").iterdir()]
        except OSError:
            continue
        for target in targets:
            number = target.removeprefix("/dev/vfio/")
            if number != target and number.isdecimal():
                found[int(number)] = f"{text(entry / 'comm')}, pid {entry.name}"
    return found


def ssh_peers() -> set[str]:
    """Who is logged in over SSH: the far ends of TCP connections to port 22, and what SSH_CONNECTION says."""
    found = set()
    words = os.environ.get("SSH_CONNECTION", "").split()
    if words:
        found.add(words[0].partition("%")[0])
    for name, size in (("tcp", 4), ("tcp6", 16)):
        for line in (text(Path("/proc/net") / name) or "").splitlines()[1:]:
            local, remote, state = line.split()[1:4]
            if state == "01" and int(local.rpartition(":")[2], 16) == SSH_PORT:
                found.add(_address(remote.rpartition(":")[0], size))
    return found


SSH_PORT = 22


def _address(words: str, size: int) -> str:
    """An address of /proc/net/tcp: 32-bit words in host order, hexadecimal."""
    import ipaddress

    raw = b"".join(int(words[at : at + 8], 16).to_bytes(4, "little") for at in range(0, size * 2, 8))
    return str(ipaddress.ip_address(raw))


def _entries(directory: Path) -> int:
    try:
        return len(os.listdir(directory))
    except OSError:
        return 0
