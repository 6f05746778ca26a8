# SPDX-License-Identifier: Apache-2.0
"""Rules about devstack's local.conf (stable/2025.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from asap2.host.check.finding import Finding
from asap2.openstack.config.check.findings import fail, warn
from asap2.openstack.config.check.reading import Devstack


def devstack(files: Iterable[Devstack]) -> Iterator[Finding]:
    """What devstack does not do any more, or by default does otherwise."""
    for file in files:
        for number, line in file.unread:
            why = "devstack evaluates the value as a shell word between double quotes"
            yield fail("devstack.quotes", f"quotes do not close: {line}", why, None, f"{file.path}:{number}")
        for number, name in file.plugins:
            if name == "os-vif":
                why = "os-vif comes with nova's packages, and has no devstack plugin any more"
                yield warn("devstack.plugin", "enable_plugin os-vif", why, "take it out", f"{file.path}:{number}")
        yield from _agent(file)


def _agent(file: Devstack) -> Iterator[Finding]:
    """Whether agent and mechanism driver are said, and belong together."""
    place, agent = file.variables.get("Q_AGENT", (1, ""))
    _, said = file.variables.get("Q_ML2_PLUGIN_MECHANISM_DRIVERS", (1, agent))
    drivers = [word.strip() for word in said.split(",")]
    agent = agent or ("ovn" if "ovn" in drivers else "")
    if agent in ("openvswitch", "ovn") and agent in drivers:
        return
    why = "devstack's default is OVN, and agent and mechanism driver belong together"
    found = f"Q_AGENT is {agent or 'not set'}"
    if agent and agent not in drivers:
        found += f", and Q_ML2_PLUGIN_MECHANISM_DRIVERS {said}"
    fix = "Q_AGENT=openvswitch, Q_ML2_PLUGIN_MECHANISM_DRIVERS=openvswitch, and disable_service of OVN's"
    yield fail("devstack.agent", found, why, fix, f"{file.path}:{place}")
