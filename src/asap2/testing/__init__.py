# SPDX-License-Identifier: Apache-2.0
"""Test programs that use Open vSwitch's hardware offload, in a lab of software NICs (docs/testing.md).

::

    with asap2.testing.lab("one-node") as lab:
        lab.node("hv1").add_bridge()
        lab.guest("vm1").ping(lab.guest("vm2"))
        lab.node("hv1").assert_offloaded("eth_type(0x0800)")

pytest has the same lab as the fixtures ``asap2_lab``, ``asap2_module_lab`` and ``asap2_session_lab``; ``unittest`` has
:class:`LabTestCase`.
"""

from asap2.host.explain.flow import Flow
from asap2.lab.background import Program
from asap2.lab.topology import Topology
from asap2.testing.capture import Capture, Packet
from asap2.testing.case import LabTestCase
from asap2.testing.connections import Connection
from asap2.testing.counters import Counters
from asap2.testing.flows import Reason
from asap2.testing.guest import Guest, Ping
from asap2.testing.labs import Lab, lab
from asap2.testing.node import Node
from asap2.testing.place import Place
from asap2.testing.result import CommandError, Result

__all__ = [
    "Capture",
    "CommandError",
    "Connection",
    "Counters",
    "Flow",
    "Guest",
    "Lab",
    "LabTestCase",
    "Node",
    "Packet",
    "Ping",
    "Place",
    "Program",
    "Reason",
    "Result",
    "Topology",
    "lab",
]
