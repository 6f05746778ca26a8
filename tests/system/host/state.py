# SPDX-License-Identifier: Apache-2.0
"""Prints what a host is like, by its own programs: sysfs, devlink, links, TC, OVSDB. Run inside a node, as a script."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

DEVICES = Path("/sys/bus/pci/devices")
ATTRIBUTES = ("driver_override", "sriov_numvfs", "sriov_drivers_autoprobe", "enable")
LINK_KEYS = ("flags", "mtu", "operstate", "address", "vfinfo_list", "phys_port_name", "phys_switch_id", "master")
VOLATILE = {"_uuid", "_version", "cur_cfg", "next_cfg", "statistics", "status", "ifindex", "link_resets"}
"""Columns of OVSDB that say how it goes, not how it is set up."""


def run(*command: str) -> str:
    """What a program prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def text(path: Path) -> str | None:
    """A file's text."""
    try:
        return path.read_text().strip()
    except OSError:
        return None


def sysfs() -> dict[str, Any]:
    """Every PCI function: its driver, its attributes, its network devices."""
    return {
        path.name: {
            "driver": os.path.basename(os.readlink(path / "driver")) if (path / "driver").is_symlink() else None,
            "net": sorted(os.listdir(path / "net")) if (path / "net").is_dir() else None,
            **{name: text(path / name) for name in ATTRIBUTES},
        }
        for path in sorted(DEVICES.iterdir())
    }


def devlink() -> dict[str, str]:
    """eSwitches, parameters, ports."""
    pfs = [path.name for path in sorted(DEVICES.iterdir()) if (path / "sriov_totalvfs").exists()]
    shown = {f"eswitch {pf}": run("devlink", "dev", "eswitch", "show", f"pci/{pf}") for pf in pfs}
    return {**shown, "params": run("devlink", "dev", "param", "show"), "ports": run("devlink", "port", "show")}


def links() -> dict[str, Any]:
    """Network devices, without what says how it goes, and hw-tc-offload of each."""
    found = {}
    for link in json.loads(run("ip", "-json", "-details", "link", "show")):
        kept = {key: link.get(key) for key in LINK_KEYS if key in link}
        if os.path.exists(f"/sys/class/net/{link['ifname']}/phys_switch_id"):
            features = run("ethtool", "-k", link["ifname"]).splitlines()
            kept["features"] = [line for line in features if "hw-tc-offload" in line]
        found[link["ifname"]] = kept
    return found


def tc() -> dict[str, Any]:
    """Qdiscs at ingress, and filters; a device's root qdisc is the kernel's, made when it first goes up."""
    qdiscs = json.loads(run("tc", "-json", "qdisc", "show"))
    ingress = sorted((one["dev"], one["kind"]) for one in qdiscs if one["kind"] in ("ingress", "clsact"))
    filters = {
        f"{dev} {hook}": re.sub(r"index \d+", "", run("tc", "filter", "show", "dev", dev, hook))
        for dev, kind in ingress
        for hook in (("ingress", "egress") if kind == "clsact" else ("ingress",))
    }
    return {"qdiscs": ingress, "filters": filters}


def ovsdb() -> dict[str, list[dict[str, str]]]:
    """Every table's rows, with names in place of UUIDs where that is possible, without volatile columns."""
    socket = "unix:/var/run/openvswitch/db.sock"
    if not os.path.exists("/var/run/openvswitch/db.sock"):
        return {}
    tables = run("ovsdb-client", "--format=csv", "--no-headings", "list-tables", socket, "Open_vSwitch").split()
    found: dict[str, list[dict[str, str]]] = {}
    names: dict[str, str] = {}
    for table in tables:
        rows = json.loads(run("ovsdb-client", "--format=json", "dump", socket, "Open_vSwitch", table))
        found[table] = [dict(zip(rows["headings"], row, strict=True)) for row in rows["data"]]
        names |= {row["_uuid"][1]: f"{table} {row.get('name', '')}" for row in found[table]}
    for table, every in found.items():
        shown = [{key: json.dumps(one) for key, one in row.items() if key not in VOLATILE} for row in every]
        for row in shown:
            for key, words in row.items():
                for uuid, name in names.items():
                    words = words.replace(uuid, name)
                row[key] = words
        found[table] = sorted(shown, key=lambda row: sorted(row.items()))
    return found


if __name__ == "__main__":
    files = {str(path): text(path) for path in sorted(Path("/etc/asap2").glob("*"))}
    data = {"sysfs": sysfs(), "devlink": devlink(), "links": links(), "tc": tc(), "ovsdb": ovsdb(), "files": files}
    print(json.dumps(data, indent=1, sort_keys=True))
