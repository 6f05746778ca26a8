# SPDX-License-Identifier: Apache-2.0
"""/proc/net/dev with the counters that a NIC's netdevs show."""

from __future__ import annotations

from asap2.nic.faces.sysfs.procfs import net_dev
from asap2.nic.netdevs import Counters

# What Linux 6.18 writes.
KERNEL = "".join(
    f"{head} {tail}\n"
    for head, tail in (
        ("Inter-|   Receive                                                ", "|  Transmit"),
        (" face |bytes    packets errs drop fifo frame compressed multicast", "|bytes    packets errs drop fifo colls"),
        ("    lo:       0       0    0    0    0     0          0         0", "       0       0    0    0    0     0"),
        ("  eth0:     280       4    1    2    0     0          0        16", "   12345      67    3    5    0     0"),
        (
            "enp3s0f0v2:     0       0    0    0    0     0          0         0",
            "       0       0    0    0    0     0",
        ),
    )
)
KERNEL = "".join(f"{line}       0          0\n" if ": " in line else f"{line}\n" for line in KERNEL.splitlines())


def test_what_is_not_the_nics_stays() -> None:
    assert net_dev(KERNEL, lambda _name: None) == KERNEL


def test_the_nics_line_is_written_as_the_kernel_writes_it() -> None:
    same = Counters(4, 67, 280, 12345, 1, 3, 2, 5, 16)
    assert net_dev(KERNEL, lambda name: same if name == "eth0" else None) == KERNEL


def test_long_numbers_widen_their_columns() -> None:
    shown = net_dev(KERNEL, lambda name: Counters(rx_bytes=1 << 40) if name == "enp3s0f0v2" else None)
    assert shown.splitlines()[4].split()[:3] == ["enp3s0f0v2:", "1099511627776", "0"]
