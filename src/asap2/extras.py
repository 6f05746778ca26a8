# SPDX-License-Identifier: Apache-2.0
"""What an extra installs, and what is no package of Python: who wants to use it is told how, in one sentence."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from asap2.errors import Asap2Error

MODULES = {
    "lab": ("mfusepy", "netaddr", "pyparsing"),
    "plot": ("matplotlib",),
    "top": ("textual",),
    "view": ("aiohttp",),
}
"""The modules that each extra of pyproject.toml brings, as far as commands of asap2 ask for them."""
LEAST = {"aiohttp": (3, 8), "textual": (2, 1)}
"""The oldest version that does, of modules that a distribution may have older: Debian 12 has textual 0.1.13."""
DEBIAN = {"lab": "asap2-lab", "plot": "python3-matplotlib", "top": "python3-textual", "view": "python3-aiohttp"}
"""The Debian package that has them."""
DISTRIBUTION = Path("/usr/lib/python3/dist-packages")
"""Where Debian's packages have Python's modules."""


def need(extra: str) -> None:
    """Asap2Error that says how to install *extra*, unless it is there and new enough."""
    for module in MODULES[extra]:
        if importlib.util.find_spec(module) is None:
            if Path(__file__).is_relative_to(DISTRIBUTION):
                raise Asap2Error(f"{DEBIAN[extra]} is not installed: `apt install {DEBIAN[extra]}`")
            raise Asap2Error(
                f"the extra `{extra}` is not installed, which has {module}: `pip install 'asap2[{extra}]'`"
            )
        least = LEAST.get(module)
        if least and (version := _version(module)) and version < least:
            there, needed = (".".join(map(str, one)) for one in (version, least))
            raise Asap2Error(
                f"{module} {there} is too old, {needed} or newer is needed: "
                f"`pip install 'asap2[{extra}]'` in a virtual environment"
            )


def _version(module: str) -> tuple[int, ...]:
    """The first two numbers of the version of a distribution that has the name of its module; () when not known."""
    import importlib.metadata  # slow, and for these modules alone

    try:
        text = importlib.metadata.version(module)
        return tuple(int(number) for number in text.split(".")[:2])
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ()


CHECKOUT = Path(__file__).resolve().parents[2]
"""The checkout that this is part of, if it is one."""


def in_checkout() -> bool:
    """Whether the Makefile's targets are at hand: not with a wheel or Debian's package."""
    return (CHECKOUT / "scripts/setup").exists()


def remedy(target: str, packages: str) -> str:
    """What installs what is missing: the Makefile's *target* in a checkout, else Debian's *packages*."""
    return f"`make {target}`" if in_checkout() else f"`apt install {packages}`, on Debian and Ubuntu,"
