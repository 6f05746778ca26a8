# SPDX-License-Identifier: Apache-2.0
"""The requested setup: a configuration file, read strictly, or the command line (docs/operator.md)."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asap2.errors import UsageError
from asap2.host.records import RecordError, from_data

Order = Literal["auto", "vfs-first", "switchdev-first"]
DEVICE = re.compile(r"(?!\.{1,2}$)[^\s/:\x00]{1,15}", re.ASCII)
"""The name of a network device, as a bridge has one, too (dev_valid_name)."""
MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}", re.ASCII | re.IGNORECASE)
DEFAULT_VFS = 4
"""Default number of VFs if there are none: as on the getting-started page."""


@dataclass(frozen=True, slots=True)
class VfWanted:
    """What VF number ``index`` gets, as by ``ip link set PF vf N``; None leaves it. A MAC counts from the next
    binding."""

    index: int
    mac: str | None = None
    trust: bool | None = None
    spoofchk: bool | None = None


@dataclass(frozen=True, slots=True)
class Nic:
    """A PF to set up.

    ``pf`` is a network device or PCI address; ``vfs`` how many VFs, None for as many as there are (or
    :data:`DEFAULT_VFS`); ``order`` whether VFs are made before the eSwitch's mode changes ("vfs-first", unbound
    meanwhile) or after; ``encap`` whether the eSwitch may encapsulate, ``steering`` who writes its rules, None to
    leave them. ``bridge`` is an Open vSwitch bridge for the uplink (with ``uplink``) and the representors (with
    ``representors``, which also sets them up), made when missing. ``representor_names`` are names that the
    representors get, by VF.
    """

    pf: str
    vfs: int | None = None
    order: Order = "auto"
    encap: bool | None = None
    steering: Literal["dmfs", "smfs"] | None = None
    bridge: str | None = None
    uplink: bool = True
    representors: bool = False
    representor_names: tuple[str, ...] = ()
    vf: tuple[VfWanted, ...] = ()


@dataclass(frozen=True, slots=True)
class Switch:
    """Options of Open vSwitch: ``tc_policy`` and ``max_idle`` (ms) are left alone when None. With ``restart`` false the
    switch is never restarted, and a change of hw-offload takes effect at its next start."""

    tc_policy: Literal["none", "skip_sw", "skip_hw"] | None = None
    max_idle: int | None = None
    restart: bool = True


@dataclass(frozen=True, slots=True)
class Wanted:
    """The whole. With ``nic_only`` Open vSwitch is left alone, as at boot, when it does not run yet."""

    nic: tuple[Nic, ...] = ()
    openvswitch: Switch = Switch()
    nic_only: bool = False


def load(path: Path) -> Wanted:
    """The configuration in the TOML file *path*; UsageError says in a sentence what is wrong with it."""
    try:
        data = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise UsageError(f"there is no configuration {path}") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    try:
        return checked(from_data(Wanted, data), str(path))
    except RecordError as error:
        raise UsageError(f"{path}: {error}") from None


def checked(wanted: Wanted, where: str) -> Wanted:
    """Check that the values of *wanted* make sense by themselves; raises UsageError if not."""
    for nic in wanted.nic:
        if nic.vfs is not None and nic.vfs < 1:
            raise UsageError(f"{where}: {nic.pf} is to have at least 1 VF, not {nic.vfs}")
        for name in (*nic.representor_names, *(() if nic.bridge is None else (nic.bridge,))):
            if not DEVICE.fullmatch(name) or len(name.encode(errors="replace")) > 15:
                raise UsageError(f"{where}: {name!r} is no name of a network device")
        for vf in nic.vf:
            if vf.mac is not None and not MAC.fullmatch(vf.mac):
                raise UsageError(f"{where}: {vf.mac!r} is not a unicast MAC like 02:00:00:00:00:01")
            if vf.index < 0 or (nic.vfs is not None and vf.index >= nic.vfs):
                raise UsageError(f"{where}: {nic.pf} is to have no VF {vf.index}")
    if wanted.openvswitch.max_idle is not None and wanted.openvswitch.max_idle < 1:
        raise UsageError(f"{where}: max_idle is a number of milliseconds above 0, not {wanted.openvswitch.max_idle}")
    names = [nic.pf for nic in wanted.nic]
    if len(set(names)) != len(names):
        raise UsageError(f"{where}: {next(name for name in names if names.count(name) > 1)} is there twice")
    return wanted


def as_toml(wanted: Wanted) -> str:
    """*wanted* as a configuration file, without what is at its default."""
    lines = []
    switch = _pairs(wanted.openvswitch)
    if switch:
        lines += ["[openvswitch]", *switch, ""]
    for nic in wanted.nic:
        lines += ["[[nic]]", *_pairs(nic), ""]
        for vf in nic.vf:
            lines += ["[[nic.vf]]", *_pairs(vf), ""]
    return "\n".join(lines)


def _pairs(record: Nic | VfWanted | Switch) -> list[str]:
    found = []
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if value != field.default and field.name != "vf":
            found.append(f"{field.name} = {_toml(value)}")
    return found


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value) if isinstance(value, int) else json.dumps(value, ensure_ascii=False)
