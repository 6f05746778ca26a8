# SPDX-License-Identifier: Apache-2.0
"""What `make wheel`, `make sdist` and `make deb` have made, and places without anything of the project."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

DIST = Path(__file__).parents[2] / "build/dist"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
"""Without what would lead to the checkout."""


def made(pattern: str) -> Path:
    """The newest file that was made."""
    found = sorted(DIST.glob(pattern), key=lambda path: path.stat().st_mtime)
    assert found, f"no {pattern} in {DIST}: `make test-packages` makes it"
    return found[-1]


class Place:
    """Where a package is installed: *enter* is the command that runs others there, with *path* to search."""

    def __init__(self, directory: Path, enter: list[str], path: str, lab: str) -> None:
        self.directory = directory
        self._enter = enter
        self._environment = {**ENVIRONMENT, "PATH": path, "ASAP2_LAB": lab, "LC_ALL": "C.UTF-8"}

    def try_(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        return subprocess.run(
            [*self._enter, *words],
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def run(self, *words: str) -> str:
        """Run a command that succeeds; its output."""
        done = self.try_(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout


LAB = """
asap2 lab up one-node
trap 'asap2 lab down' EXIT
asap2 exec hv1 ovs-vsctl set Open_vSwitch . other_config:hw-offload=true
asap2 exec hv1 systemctl restart openvswitch
asap2 exec hv1 ovs-vsctl add-br br0
for port in eth0 eth1; do
  asap2 exec hv1 ovs-vsctl add-port br0 $port
  asap2 exec hv1 ip link set $port up
done
asap2 exec vm1 ping -q -c 20 -i 0.05 10.57.0.2
asap2 exec hv1 ovs-appctl dpctl/dump-flows type=offloaded
"""


def offloads(place: Place) -> None:
    """A lab comes up; a ping goes through, and its flow is in hardware; the lab goes, with all that is in it."""
    try:
        said = place.run("sh", "-euc", LAB)
    finally:
        place.try_("asap2", "lab", "down")  # a shell that was killed has not done it
    assert " 0% packet loss" in said
    assert "eth_type(0x0800)" in said


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A Debian of the release of this machine, with nothing but what it cannot be without, and APT's sources."""
    root = tmp_path_factory.mktemp("debian")
    release = subprocess.run(["sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME"], capture_output=True, text=True)
    suite = release.stdout.strip()
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", f"Codename: {suite}"]
    mirror = subprocess.run(targets, capture_output=True, text=True, check=True).stdout.split()[0]
    subprocess.run(["debootstrap", "--variant=minbase", suite, str(root), mirror], check=True, capture_output=True)
    for name in ("apt/sources.list.d", "apt/apt.conf.d", "ssl/certs"):
        shutil.rmtree(root / "etc" / name, ignore_errors=True)
        shutil.copytree(Path("/etc", name), root / "etc" / name, symlinks=False, ignore_dangling_symlinks=True)
    for name in ("hosts", "resolv.conf"):
        shutil.copy(Path("/etc", name), root / "etc" / name)
    (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    inside = (
        'mount --rbind /dev "$0/dev"; mount --rbind /sys "$0/sys"; mount -t proc proc "$0/proc"; '
        'mount --rbind /tmp "$0/tmp"; mkdir -p /run/packages-test; mount --rbind /run/packages-test "$0/run"; '
        'exec chroot "$0" "$@"'
    )
    enter = ["unshare", "--mount", "--propagation", "slave", "sh", "-euc", inside, str(root)]
    place = Place(root, enter, PATH, "/run/packages")
    place.run("apt-get", "update", "-q")
    yield place
    shutil.rmtree(root)
