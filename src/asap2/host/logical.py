# SPDX-License-Identifier: Apache-2.0
"""What OVN's logical network has to do with a datapath flow, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogicalFlow:
    """A row of the southbound database's table Logical_Flow: ``datapath`` is the logical switch or router that packets
    of the flow are in, ``pipeline`` "ingress" or "egress", ``stage`` its name (``ls_in_acl``), and ``cookie`` the first
    32 bits of its UUID, which is the cookie of its OpenFlow rules."""

    cookie: str
    datapath: str
    pipeline: str
    stage: str
    table: int
    priority: int
    match: str
    actions: str

    def __str__(self) -> str:
        """For people: ``sw0 ls_in_lb (ingress 12, priority 120): ct.new && … → ct_lb_mark(…);``."""
        where = f"{self.datapath} {self.stage} ({self.pipeline} {self.table}, priority {self.priority})"
        return f"{where}: {self.match} → {self.actions}"

    @property
    def is_plain(self) -> bool:
        """Whether it only lets packets go on."""
        return self.actions.strip() == "next;"


@dataclass(frozen=True, slots=True)
class LogicalPath:
    """The logical flows that packets of the flow *ufid* meet, in order, and the logical ports that they pass."""

    ufid: str
    ports: tuple[str, ...] = ()
    flows: tuple[LogicalFlow, ...] = ()
