# SPDX-License-Identifier: Apache-2.0
"""A root directory of a Debian release as a new user has it, with this checkout's commit, and commands run there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from asap2.errors import Asap2Error

TOP: Final = Path(__file__).parents[2]
PLACE: Final = TOP / "build/distributions"
"""What is kept between runs, the base of each release, and what a run needs for its time."""
_BARE: Final = ("make", "git", "ca-certificates")
_BOOTED: Final = ("linux-image-cloud-amd64", "systemd-sysv", "udev", "kmod")
"""Packages that a root has before anything of ours is installed: any, and one that is booted."""
_PASSED_ON: Final = ("PIP_", "SSL_CERT", "REQUESTS_CA", "http", "HTTP", "NO_PROXY", "no_proxy")
"""Beginnings of the names of variables by which a machine tells how the network is reached."""
_OF_THIS_MACHINE: Final = ("etc/resolv.conf", "etc/hosts", "etc/pip.conf", "etc/apt/apt.conf.d/99*", "etc/ssl/certs/*")
"""Files by which the network is reached."""
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}
_ENTER: Final = """
root=$1; shift
mount --rbind /dev "$root/dev"; mount --rbind /sys "$root/sys"; mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/run"; mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
exec chroot "$root" env -i "$@"
"""


def environment() -> dict[str, str]:
    """The variables of commands in a root."""
    passed = {k: v for k, v in os.environ.items() if k.startswith(_PASSED_ON) and "FIND_LINKS" not in k}
    return {**_ENVIRONMENT, **passed}


def base(suite: str, booted: bool) -> Path:
    """An archive of the release's root, made where it is missing."""
    archive = PLACE / f"{suite}{'-booted' if booted else ''}.tar"
    if archive.exists():
        return archive
    PLACE.mkdir(parents=True, exist_ok=True)
    root, part = PLACE / "base", archive.with_suffix(".part")
    shutil.rmtree(root, ignore_errors=True)
    packages = ",".join((*_BARE, *(_BOOTED if booted else ())))
    try:
        _run("debootstrap", "--variant=minbase", f"--include={packages}", suite, str(root), _mirror())
        _run("tar", "-C", str(root), "-cf", str(part), ".")
        part.rename(archive)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return archive


def unpack(suite: str, booted: bool) -> Path:
    """A new root of the release, with the commit of this checkout in /src."""
    archive, root = base(suite, booted), PLACE / "root"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(mode=0o755)
    _run("tar", "-C", str(root), "-xf", str(archive))
    sources = root / "etc/apt/sources.list.d"
    shutil.rmtree(sources, ignore_errors=True)
    sources.mkdir()
    suites = (suite,) if suite == "sid" else (suite, f"{suite}-updates")
    lines = [f"deb {_mirror()} {one} main\n" for one in suites]
    (root / "etc/apt/sources.list").write_text("".join(lines))
    for path in _OF_THIS_MACHINE:
        for one in Path("/").glob(path):
            _copy(one, root)
    _run("git", "clone", "-q", str(TOP), str(root / "src"))
    return root


def _copy(path: Path, root: Path) -> None:
    """Put a file of this machine into *root*; what was there may be a link that means another place here."""
    if path.is_file():
        copy = root / path.relative_to("/")
        copy.unlink(missing_ok=True)
        shutil.copyfile(path, copy)


def run_in(root: Path, command: str, seconds: float, log: Path) -> int:
    """The exit status of a shell command in /src there; its output goes to *log*. It ends after so many *seconds*."""
    words = ["unshare", "-m", "-p", "-f", "--kill-child", "--propagation", "private", "timeout", str(seconds)]
    words += ["bash", "-euc", _ENTER, "_", str(root), *(f"{name}={value}" for name, value in environment().items())]
    words += ["bash", "-c", f"apt-get update -qq && cd /src && {command}"]
    with log.open("wb") as out:
        return subprocess.run(words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT).returncode


def _mirror() -> str:
    """Where this machine has Debian from."""
    shown = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)"], stdout=subprocess.PIPE, text=True
    ).stdout
    found = [line.split()[0] for line in shown.splitlines() if line.endswith(" Debian Debian")]
    return found[0] if found else "http://deb.debian.org/debian"


def _run(*words: str) -> None:
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise Asap2Error(f"{words[0]} failed: {' '.join(last)}")
