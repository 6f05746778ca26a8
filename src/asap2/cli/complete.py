# SPDX-License-Identifier: Apache-2.0
"""What a shell offers for an argument, as far as that can be seen at once."""

from __future__ import annotations

from pathlib import Path


def pfs() -> list[str]:
    """The network devices of this host's physical functions, which SR-IOV is possible on."""
    return sorted(path.parts[-3] for path in Path("/sys/class/net").glob("*/device/sriov_totalvfs"))


def places() -> list[str]:
    """The nodes and guests of the lab."""
    from asap2.lab.layout import layout

    return sorted({namespace.parts[-3] for namespace in layout().root.glob("*/*/ns/net")})


def topologies() -> list[str]:
    """The topologies that come with asap2, and the files here."""
    from asap2.lab import gallery

    return [*gallery.names(), *sorted(map(str, Path().glob("*.toml")))]
