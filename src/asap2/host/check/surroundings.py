# SPDX-License-Identifier: Apache-2.0
"""Checks of who else sets up network devices, and of the machine's tuning."""

from __future__ import annotations

from collections.abc import Iterator

from asap2.host.check.eswitch import ports
from asap2.host.check.finding import Result, check, fail, listed, ok, unknown, warn
from asap2.host.inventory import Host, Pf

PFS = tuple[Pf, ...]
NAME_MAX = 15
"""Characters of a device's name (IFNAMSIZ - 1, linux/if.h)."""
COUNTED = 1
"""NET_NAME_ENUM (linux/netdevice.h): the kernel chose the name by counting."""


@check("networkmanager", "it sets addresses on representors, takes them down, and removes their qdiscs")
def network_manager(host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether NetworkManager keeps off."""
    if not host.platform.network_manager:
        yield ok("not running")
        return
    taken = [
        netdev.name for pf in pfs for netdev in ports(host, pf) if netdev.nm_managed and netdev.vf_number is not None
    ]
    if taken:
        fix = f"nmcli device set {taken[0]} managed no   # for good: `asap2 host persist`"
        yield warn(f"it manages {listed(taken)}", fix)
    else:
        yield ok("running, but manages no representor")


@check("udev", "representors that change their names lose their place in Open vSwitch")
def udev(host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether representors keep their names."""
    for pf in pfs:
        counted = [
            netdev.name
            for _, netdev in host.representors(pf)
            if netdev.name_assigned == COUNTED or (netdev.name_assigned is None and netdev.name.startswith("eth"))
        ]
        if counted and not host.platform.udev_rules:
            found = f"the kernel numbered them: {listed(counted)}, and no udev rule keeps these names"
            yield warn(found, "asap2 host persist", pf.name)
        elif host.platform.udev_rules:
            yield ok(f"rules in {listed(list(host.platform.udev_rules), 2)}", pf.name)
        elif dict(host.representors(pf)):
            yield ok("none has a name that the kernel numbered", pf.name)
        long = [netdev.name for _, netdev in host.representors(pf) if len(netdev.name) > NAME_MAX]
        if long:
            yield fail(f"names of more than {NAME_MAX} characters: {listed(long)}", None, pf.name)


@check("governor", "what is not offloaded is slower when CPUs save energy")
def governor(host: Host, _pfs: PFS) -> Iterator[Result]:
    """The CPUs' frequency governor."""
    slow = [name for name in host.platform.governors if name != "performance"]
    if not host.platform.governors:
        yield ok("the kernel does not set the CPUs' frequency here")
    elif slow:
        yield warn(listed(slow), "cpupower frequency-set -g performance")
    else:
        yield ok("performance")


@check("numa", "guests and ovs-vswitchd are faster on the NIC's own NUMA node")
def numa(_host: Host, pfs: PFS) -> Iterator[Result]:
    """Where the NIC is."""
    for pf in pfs:
        if pf.numa_node is None:
            yield unknown("the kernel does not report the NIC's node", None, pf.name)
        else:
            yield ok(f"node {pf.numa_node}, CPUs {pf.local_cpus or 'unknown'}", pf.name)


@check("irq", "interrupts of the NIC on another node, or all on one CPU, hold first packets up")
def irq(_host: Host, pfs: PFS) -> Iterator[Result]:
    """Which CPUs take the NIC's interrupts."""
    for pf in pfs:
        local = cpu_list(pf.local_cpus)
        if not pf.irqs:
            yield unknown("the kernel does not list its interrupts", None, pf.name)
            continue
        takers = [cpu_list(cpus) for _, cpus in pf.irqs]
        fix = f"set_irq_affinity.sh {pf.name}   # or write CPUs of {pf.local_cpus} to /proc/irq/N/smp_affinity_list"
        foreign = sum(1 for cpus in takers if local and not cpus & local)
        if foreign:
            yield warn(f"{foreign} of {len(takers)} interrupts are on CPUs of another node", fix, pf.name)
        elif len(takers) > 1 and len(local) > 1 and all(cpus == takers[0] and len(cpus) == 1 for cpus in takers):
            yield warn(f"all {len(takers)} interrupts are on CPU {next(iter(takers[0]))}", fix, pf.name)
        else:
            yield ok(f"{len(takers)} interrupts on CPUs of its node", pf.name)


def cpu_list(words: str) -> frozenset[int]:
    """The CPUs of a list as sysfs writes it: ``0-3,8``."""
    found: set[int] = set()
    for part in filter(None, words.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found)


CHECKS = (network_manager, udev, governor, numa, irq)
