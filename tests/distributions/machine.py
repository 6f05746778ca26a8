# SPDX-License-Identifier: Apache-2.0
"""A root booted with its release's own kernel, in qemu without the processor's help: slow, and the same everywhere."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Final

from tests.distributions.root import PLACE, environment, run_in

_DISK: Final = "8G"
_SETUP_SECONDS: Final = 1200
_UNIT: Final = """[Unit]
After=multi-user.target
[Service]
ExecStart=/usr/local/bin/job
[Install]
WantedBy=multi-user.target
"""
_JOB: Final = """#!/bin/bash
exec >/dev/ttyS0 2>&1 </dev/null
{exports}
cd /src
echo "kernel $(uname -r), Open vSwitch service $(systemctl is-active openvswitch-switch)"
bash -c {command}
echo "job ended: $?"
sync; poweroff -f
"""


def run_booted(root: Path, command: str, seconds: float, log: Path) -> int:
    """The exit status of a shell command there, which has no network; what is needed is installed before the boot.

    99: the machine did not come to its end in so many *seconds*.
    """
    done = run_in(root, "make setup", _SETUP_SECONDS, log)
    if done:
        return done
    job, units = root / "usr/local/bin/job", root / "etc/systemd/system"
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment().items())
    job.write_text(_JOB.format(exports=exports, command=shlex.quote(command)))
    job.chmod(0o755)
    (units / "job.service").write_text(_UNIT)
    wanted = units / "multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    (wanted / "job.service").symlink_to("../job.service")
    (units / "serial-getty@ttyS0.service").symlink_to("/dev/null")
    (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
    image = PLACE / "disk.img"
    try:
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, image, _DISK], check=True)
        _boot(root / "boot", image, seconds, log)
    finally:
        image.unlink(missing_ok=True)
    found = re.findall(r"^job ended: (\d+)\r?$", log.read_text(errors="replace"), re.MULTILINE)
    return int(found[-1]) if found else 99


def _boot(boot: Path, image: Path, seconds: float, log: Path) -> None:
    kernel, initrd = (max(boot.glob(f"{name}-*")) for name in ("vmlinuz", "initrd.img"))
    command = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"]
    command += ["-m", "4096", "-nographic", "-no-reboot", "-nic", "none"]
    command += ["-kernel", str(kernel), "-initrd", str(initrd)]
    command += ["-append", "root=/dev/vda rw console=ttyS0 mitigations=off quiet"]
    command += ["-drive", f"file={image},if=virtio,format=raw"]
    with log.open("ab") as out:
        subprocess.run(
            ["timeout", str(seconds), *command], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
