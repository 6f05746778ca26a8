# SPDX-License-Identifier: Apache-2.0
"""What pyproject.toml cannot say: a wheel has the files that scripts/native.py compiles, and the tag of the platform
that they run on. An editable installation has none of these files: scripts/setup compiles them in the checkout."""

import gzip
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError

TOP = Path(__file__).resolve().parent
sys.path.insert(0, str(TOP / "scripts"))

import native  # noqa: E402

GLIBC = re.compile(r"\bGLIBC_2\.(\d+)")
GENERATOR = ("asap2.nic.silicon", "generate")
"""The module that writes a header of the C sources, which a wheel is without."""


def platform_tag() -> str:
    """The tag of PEP 600: glibc at least as new as the newest symbol that a compiled file uses. For an editable
    installation some may not be there yet."""
    elves = [TOP / "src/asap2" / file.output for file in native.FILES if not file.is_bpf]
    there = [elf for elf in elves if elf.exists()]
    command = ["readelf", "--version-info", *there]
    versions = subprocess.run(command, capture_output=True, text=True, check=True).stdout if there else ""
    newest = max((int(minor) for minor in GLIBC.findall(versions)), default=17)
    return f"manylinux_2_{newest}_{platform.machine()}"


class Build(build_py):
    """Compiles first, so that what is compiled is there to be copied. Copies to an empty directory: in one that was
    used before, there would still be the modules that have been removed since."""

    def run(self) -> None:
        """Compile and copy."""
        if not getattr(self, "editable_mode", False):
            shutil.rmtree(self.build_lib, ignore_errors=True)
            try:
                native.build()
            except native.NativeError as error:
                raise CompileError(f"asap2: {error}") from None
        super().run()
        if not getattr(self, "editable_mode", False):
            for compiled in Path(self.build_lib).glob("**/*.bpf.o"):  # the largest is a fifth then
                compiled.with_name(f"{compiled.name}.gz").write_bytes(gzip.compress(compiled.read_bytes(), mtime=0))
                compiled.unlink()

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """The modules of a package, without the one that is of use in a checkout only."""
        return [one for one in super().find_package_modules(package, package_dir) if one[:2] != GENERATOR]


class Wheel(bdist_wheel):
    """A wheel for one platform and every Python 3: nothing in it is linked with Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Interpreter, ABI, platform."""
        return "py3", "none", platform_tag()


class OfPlatform(Distribution):
    """A distribution that is not for all platforms."""

    def has_ext_modules(self) -> bool:
        """As if there were extension modules."""
        return True


setup(distclass=OfPlatform, cmdclass={"build_py": Build, "bdist_wheel": Wheel})
