# SPDX-License-Identifier: Apache-2.0
"""Removing all network devices of a namespace, so that they are gone when the command returns.

The kernel destroys a namespace that nobody uses some time later, in the background.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

from asap2.lab.enter import environment


def remove_links(namespaces: Iterable[Path]) -> None:
    """Remove every device but the loopback from the network namespaces kept at the given files.

    One that goes with another (the other end of a veth pair) or that cannot be removed (a namespace's built-in tunnel
    device) is passed over.
    """
    for netns in namespaces:
        listed = _ip(netns, "-json", "link", "show")
        names = [link["ifname"] for link in json.loads(listed or "[]") if link["ifname"] != "lo"]
        if names:
            _ip(netns, "-force", "-batch", "-", words="".join(f"link del dev {name}\n" for name in names))


def _ip(netns: Path, *arguments: str, words: str = "") -> str:
    command = ["nsenter", f"--net={netns}", "ip", *arguments]
    return subprocess.run(command, input=words, capture_output=True, text=True, env=environment()).stdout
