# SPDX-License-Identifier: Apache-2.0
"""Ask the switch itself: install flows of its datapath again, unchanged, while its debug log is on.

That changes no packet's way: TC takes a flow that it can, and the NIC then has it, or the datapath keeps it.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from typing import TextIO

from asap2.errors import Asap2Error
from asap2.host.explain.flow import Flow, named
from asap2.host.inventory import DatapathPort
from asap2.host.openvswitch import SwitchError, ask, switch_pid
from asap2.host.switch_log import path

MODULES = ("dpif_netlink", "netdev_offload_tc", "dpif_offload", "dpif_offload_tc", "dpif_offload_tc_netdev", "tc")
"""The switch's modules that tell why they refuse a flow: Open vSwitch 3.7 has those of dpif_offload for the second."""
MOST = 16
"""Flows that are asked about: the switch's debug log has twenty lines of a kind, then five a minute."""
PATIENCE = 5.0
"""Seconds that a line may take to be in the log."""
_LEVELS = re.compile(r"^(\w+)[ \t]+\w+[ \t]+\w+[ \t]+(\w+)(?:[ \t]+\(rate limiting disabled\))?[ \t]*$", re.MULTILINE)


def log_levels(text: str) -> dict[str, str]:
    """The levels of the log file by module that ``vlog/list`` printed."""
    return {module: level for module, level in _LEVELS.findall(text) if module in MODULES}


def ask_about(flows: Iterable[Flow], ports: Iterable[DatapathPort]) -> None:
    """Have the switch's log tell why it does not offload *flows*, the first :data:`MOST` of them, in a datapath with
    *ports*; Asap2Error when its log cannot be read or it does not answer."""
    numbers = {one.name: str(one.number) for one in ports}
    where = path(switch_pid())
    try:
        with where.open(errors="replace") as log, debugging():
            log.seek(0, os.SEEK_END)
            for flow in [one for one in flows if one.ufid and one.dp == "ovs"][:MOST]:
                _put_again(named(flow, numbers), log)
    except OSError as error:
        raise Asap2Error(f"--deep reads the switch's log, and cannot: {where}: {error.strerror}") from None
    except SwitchError as error:
        raise Asap2Error(str(error)) from None


@contextlib.contextmanager
def debugging() -> Iterator[None]:
    """Log debug lines of :data:`MODULES` to the file while the context is active, and restore their levels."""
    levels = log_levels(ask("vlog/list"))
    try:
        for module in levels:
            ask("vlog/set", f"{module}:file:dbg")
        yield
    finally:
        for module, level in levels.items():
            ask("vlog/set", f"{module}:file:{level}")


def _put_again(flow: Flow, log: TextIO) -> None:
    """Install *flow* again, unchanged, and wait until the log has it."""
    key = re.split(r", ?packets:", flow.text, maxsplit=1)[0]
    actions = ",".join(map(str, flow.actions)) or "drop"  # as numbers: names of ports are read in the key alone
    with contextlib.suppress(SwitchError):  # it has gone meanwhile, or its text is not one that the switch reads
        ask("dpctl/mod-flow", flow.datapath, key, actions)
        seen, end = "", time.monotonic() + PATIENCE
        while f"ufid:{flow.ufid}" not in seen and time.monotonic() < end:
            seen += log.read()
            time.sleep(0.005)
