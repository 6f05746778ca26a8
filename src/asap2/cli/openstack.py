# SPDX-License-Identifier: Apache-2.0
"""``asap2 openstack VERB``. Each verb is a module ``openstack_VERB``, imported when it is asked for."""

from __future__ import annotations

from asap2.cli.verbs import Verbs

VERBS = ("up", "down", "ls", "start", "stop", "config")

command = Verbs(
    name="openstack",
    help="OpenStack on switchdev NICs: a real cloud in a lab on this machine, and settings for other clouds.",
    no_args_is_help=True,
)
command.verbs = VERBS
command.prefix = "openstack_"
