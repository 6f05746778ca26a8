# SPDX-License-Identifier: Apache-2.0
"""``writer.py SEED COUNT``: in a node, writes COUNT times to files of /sys that are the NIC's: what was meant, and what
was not. Prints as JSON how writes ended, and where a file did not say afterwards what was written to it.
"""

from __future__ import annotations

import collections
import json
import os
import random
import sys
from pathlib import Path

from asap2.nic.faces.sysfs import kstrto

PF = "0000:03:00.0"
DEVICE = Path(f"/sys/bus/pci/devices/{PF}")
DRIVER = Path("/sys/bus/pci/drivers/mlx5_core")
NUMBERS = (
    "0",
    "1",
    "2",
    "3",
    "4",
    "8",
    "9",
    "-1",
    "0x2",
    "07",
    "1e3",
    "4294967296",
    "99999999999999999999",
    " 1",
    "1 ",
    "",
)
TEXTS = ("mlx5_core", "vfio-pci", "none", "add", "remove", "x" * 5000, "\0\0", "15b3 1018", "zz zz", "é", "%s%n")


class Writer:
    """Writes, and remembers what came of it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.ended: collections.Counter[str] = collections.Counter()
        self.trouble: list[str] = []

    def once(self) -> None:
        """One write."""
        path, text = self._what()
        data = text.encode(errors="surrogateescape") + (b"\n" if self.rng.random() < 0.8 else b"")
        try:
            descriptor = os.open(path, os.O_WRONLY)
        except OSError as error:
            self.ended[f"open: {error.strerror}"] += 1
            return
        try:
            os.write(descriptor, data)
        except OSError as error:
            self.ended[str(error.strerror)] += 1
            return
        finally:
            os.close(descriptor)
        self.ended["written"] += 1
        self._see(path, data)

    def _what(self) -> tuple[Path, str]:
        rng = self.rng
        kind = rng.random()
        functions = [PF, *(f"0000:03:00.{i}" for i in range(2, 6)), "0000:03:01.1", "0000:0f:00.0", rng.choice(TEXTS)]
        if kind < 0.04:
            return DEVICE / "sriov_numvfs", rng.choice(("0", "2", "4", "4", "4"))
        if kind < 0.2:
            return DEVICE / "sriov_numvfs", rng.choice(NUMBERS)
        if kind < 0.4:
            places = ("bind", "unbind", "new_id", "remove_id", "uevent")
            chosen = rng.choice(functions[1:]) if rng.random() < 0.99 else PF
            return DRIVER / rng.choice(places), chosen if rng.random() < 0.8 else rng.choice(NUMBERS + TEXTS)
        if kind < 0.5:
            return Path("/sys/bus/pci") / rng.choice(("drivers_probe", "drivers_autoprobe", "rescan")), rng.choice(
                functions
            )
        function = Path("/sys/bus/pci/devices") / rng.choice(functions[:6])
        if kind < 0.75:
            name = rng.choice(
                ("sriov_drivers_autoprobe", "driver_override", "enable", "rescan", "uevent", "config", "vendor")
            )
            return function / name, rng.choice(NUMBERS + TEXTS)
        if kind < 0.8:
            return DEVICE / "driver_override", rng.choice(("", "mlx5_core"))
        names = [name for name in os.listdir("/sys/class/net") if name not in ("lo", "ovs-system")] or ["lo"]
        file = rng.choice(("mtu", "speed", "phys_switch_id", "tx_queue_len", "ifalias", "device/sriov_numvfs"))
        value = rng.choice(("68", "1500", "9978", "9979", *NUMBERS)) if file != "ifalias" else rng.choice(TEXTS)
        return Path("/sys/class/net") / rng.choice(names) / file, value

    def _see(self, path: Path, data: bytes) -> None:
        """What a written file says, where that is what was written."""
        if not data or path.name not in ("sriov_numvfs", "sriov_drivers_autoprobe"):
            return
        try:
            shown = path.read_text()
        except FileNotFoundError:  # the device went with the write
            return
        if path.name == "sriov_numvfs":
            links = len(list(DEVICE.glob("virtfn*")))
            if kstrto.unsigned(data, 16) != int(shown) or links != int(shown):
                self.trouble.append(f"{path} says {shown!r}, with {links} virtfn, after {data!r}")

    def restore(self) -> None:
        """The state that the node began with: four VFs, and the PF bound."""
        for path, text in (
            (DEVICE / "driver_override", ""),
            (DRIVER / "bind", PF),
            (DEVICE / "sriov_drivers_autoprobe", "1"),
            (DEVICE / "sriov_numvfs", "0"),
            (DEVICE / "sriov_numvfs", "4"),
        ):
            try:
                path.write_text(f"{text}\n")
            except OSError as error:
                if path.name != "bind":
                    self.trouble.append(f"{path}: {error}")


def main() -> None:
    """Write, and say what came of it."""
    writer = Writer(int(sys.argv[1]))
    for _ in range(int(sys.argv[2])):
        writer.once()
        if writer.rng.random() < 0.01 and not (DRIVER / PF).exists():
            writer.restore()
    writer.restore()
    print(json.dumps({"ended": dict(writer.ended.most_common()), "trouble": writer.trouble[:20]}))


if __name__ == "__main__":
    main()
