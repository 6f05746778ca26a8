# SPDX-License-Identifier: Apache-2.0
"""Compile what is not Python: eBPF programs, the redirect library. :data:`FILES` is the list of all of them.

``python3 scripts/native.py`` compiles, in place, those that are not current; so does setup.py, for a wheel. Needs the
standard library alone. Each file has a stamp in build/stamps: the hash of its command and of what it is made from.
``CC`` and ``CLANG`` name other compilers.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
CC = os.environ.get("CC", "cc")
CLANG = os.environ.get("CLANG", "clang")
LINKED = "linked by libbpf"
"""Part of the hash: how an object is made beyond its command."""
WARNINGS = ("-O2", "-Wall", "-Wextra", "-Werror")
REPRODUCIBLE = ("-fdebug-compilation-dir=.",)
"""The same file wherever the source is, so that no path of the machine is in a package."""
REMEDY = "Debian and Ubuntu have what is needed in `apt install clang gcc libc6-dev linux-libc-dev libbpf-dev`"


class NativeError(Exception):
    """Something cannot be compiled here; the text says what, and what to install."""


def bpf() -> list[str]:
    """The command that makes an eBPF object. Distributions for several architectures have <asm/types.h> below one."""
    includes = f"-I/usr/include/{platform.machine()}-linux-gnu"
    return [
        CLANG,
        *WARNINGS,
        "-g",
        "-Wno-unused-parameter",
        "-target",
        "bpf",
        "-mcpu=v3",
        *REPRODUCIBLE,
        includes,
        "-c",
    ]


def watched_bpf() -> list[str]:
    """The command that makes an eBPF object that tells of each step of a packet (nic/silicon/watch.h)."""
    return [*bpf(), "-DASAP2_TRACE"]


def library() -> list[str]:
    """The command that makes a library to preload."""
    return [CC, *WARNINGS, "-shared", "-fPIC"]


def program() -> list[str]:
    """The command that makes a program."""
    return [CC, *WARNINGS]


@dataclass(frozen=True)
class File:
    """A file to compile: ``output`` and ``source`` are below src/asap2, as are ``others``, patterns of what else it is
    made from."""

    what: str
    output: str
    source: str
    command: Callable[[], list[str]]
    others: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()

    @property
    def is_bpf(self) -> bool:
        """Whether it is for the kernel's eBPF machine."""
        return self.command in (bpf, watched_bpf)


FILES = (
    File("eBPF program", "nic/silicon/eswitch.bpf.o", "nic/silicon/eswitch.bpf.c", bpf, ("nic/silicon/*.h",)),
    File(
        "eBPF program that traces",
        "nic/silicon/eswitch_trace.bpf.o",
        "nic/silicon/eswitch.bpf.c",
        watched_bpf,
        ("nic/silicon/*.h",),
    ),
    File("link kinds' eBPF program", "nic/kinds/kinds.bpf.o", "nic/kinds/kinds.bpf.c", bpf, ("nic/kinds/*.h",)),
    File(
        "tunnel devices' eBPF program",
        "nic/kinds/tunnels.bpf.o",
        "nic/kinds/tunnels.bpf.c",
        bpf,
        ("nic/kinds/*.h", "nic/silicon/*.h"),
    ),
    File("benchmark's eBPF program", "lab/bench/scale/flows.bpf.o", "lab/bench/scale/flows.bpf.c", bpf),
    File("cables' eBPF program", "lab/impair.bpf.o", "lab/impair.bpf.c", bpf),
    File("cables' delay", "lab/delay", "lab/delay.c", program),
    File(
        "redirect library",
        "netlink/redirect.so",
        "netlink/redirect.c",
        library,
        ("netlink/*.[ch]",),
        libraries=("-ldl", "-lpthread"),
    ),
    File("benchmark's requests", "lab/bench/redirect/requests", "lab/bench/redirect/requests.c", program),
    File("redirect daemon", "netlink/redirectd", "netlink/redirectd.c", program, ("netlink/*.h",), ("-lpthread",)),
)


def build(files: Iterable[File] = FILES, tell: Callable[[str], None] = print) -> None:
    """Compile those of *files* that are not current. NativeError."""
    for file in files:
        source = Path("src/asap2") / file.source
        command = [*file.command(), str(source), *file.libraries]
        wanted = _hash(command, file)
        stamp = TOP / "build/stamps" / file.output.replace("/", "-")
        output = TOP / "src/asap2" / file.output
        if output.exists() and stamp.exists() and stamp.read_text() == wanted:
            continue
        tell(f"{file.what} ...")
        began = time.monotonic()
        new = output.with_name(f"{output.name}.new")  # so that who uses the file never sees half of it
        _compile(file, [*command, "-o", str(new)])
        if file.is_bpf:
            _link(new)
        new.rename(output)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(wanted)
        tell(f"{file.what}: done in {time.monotonic() - began:.0f} s")


def _hash(command: list[str], file: File) -> str:
    package = TOP / "src/asap2"
    made_from = {package / file.source, *(path for pattern in file.others for path in package.glob(pattern))}
    digest = hashlib.sha256("\n".join([*command, LINKED]).encode())
    for path in sorted(made_from):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _compile(file: File, command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        raise NativeError(f"the {file.what} cannot be compiled: {command[0]} is not installed; {REMEDY}")
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True)
    if done.returncode == 0:
        return
    if file.is_bpf and not _has_header("bpf/bpf_helpers.h"):
        raise NativeError(f"the {file.what} cannot be compiled: libbpf's headers are not installed; {REMEDY}")
    raise NativeError(f"the {file.what} cannot be compiled:\n{done.stderr.strip()}")


def _link(output: Path) -> None:
    """Have libbpf write the object anew, without what only a debugger reads: that is half of it. ``bpftool gen object``
    does the same."""
    try:
        libbpf = ctypes.CDLL("libbpf.so.1")
    except OSError:
        return
    libbpf.bpf_linker__new.restype = ctypes.c_void_p
    compiled = output.rename(output.with_name(f"{output.name}.compiled"))
    linker = ctypes.c_void_p(libbpf.bpf_linker__new(bytes(output), None))
    failed = libbpf.bpf_linker__add_file(linker, bytes(compiled), None) or libbpf.bpf_linker__finalize(linker)
    libbpf.bpf_linker__free(linker)
    if failed:
        compiled.rename(output)
    else:
        compiled.unlink()


def _has_header(name: str) -> bool:
    with tempfile.NamedTemporaryFile("w", suffix=".c") as probe:
        probe.write(f"#include <linux/bpf.h>\n#include <{name}>\n")
        probe.flush()
        return subprocess.run([*bpf(), probe.name, "-o", os.devnull], capture_output=True).returncode == 0


def main() -> int:
    """Compile all; with ``--list``, print the paths of what is compiled, below src, with ``--programs`` those of
    programs. The exit status."""
    if sys.argv[1:] in (["--list"], ["--programs"]):
        some = FILES if sys.argv[1] == "--list" else [file for file in FILES if file.command is program]
        print(*(f"asap2/{file.output}" for file in some), sep="\n")
        return 0
    try:
        build(tell=lambda text: print(f"setup: {text}", flush=True))
    except NativeError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
