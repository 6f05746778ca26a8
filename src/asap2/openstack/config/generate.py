# SPDX-License-Identifier: Apache-2.0
"""The files of each format, by role."""

from __future__ import annotations

import enum
from types import ModuleType

from asap2.openstack.config import devstack, kolla, osa, plain, tripleo
from asap2.openstack.config.files import File
from asap2.openstack.config.values import Values


class Format(enum.StrEnum):
    """How OpenStack is installed."""

    PLAIN = "plain"
    DEVSTACK = "devstack"
    TRIPLEO = "tripleo"
    KOLLA = "kolla"
    OSA = "osa"


class Role(enum.StrEnum):
    """What a node does: the servers and network services, or guests. A deployment tool's own files are the first's."""

    CONTROLLER = "controller"
    COMPUTE = "compute"


FORMATS: dict[Format, ModuleType] = {
    Format.PLAIN: plain,
    Format.DEVSTACK: devstack,
    Format.TRIPLEO: tripleo,
    Format.KOLLA: kolla,
    Format.OSA: osa,
}


def generate(values: Values, format: Format, role: Role | None) -> list[File]:
    """The files of *role*, None for both."""
    module = FORMATS[format]
    files: list[File] = []
    if role in (None, Role.CONTROLLER):
        files += module.controller(values)
    if role in (None, Role.COMPUTE):
        for one in values.computes:
            files += module.compute(values, one)
    return files
