# SPDX-License-Identifier: Apache-2.0
"""``asap2 host VERB``: the operator's half. Each verb is a module ``host_VERB``, imported when it is asked for."""

from __future__ import annotations

from asap2.cli.verbs import Verbs

VERBS = ("check", "setup", "undo", "status", "top", "verify", "explain", "metrics", "persist", "capture", "view")

command = Verbs(
    name="host",
    help="Check, set up, watch and undo Open vSwitch hardware offload on this host's switchdev NICs.",
    no_args_is_help=True,
)
command.verbs = VERBS
command.prefix = "host_"
