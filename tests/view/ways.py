# SPDX-License-Identifier: Apache-2.0
"""Ways of packets through the lab that is not there (:mod:`.synthetic`), as ``asap2 trace --json`` writes them."""

from __future__ import annotations

import json
from pathlib import Path

from asap2.answers import marked
from asap2.trace.data import StepData, WayData
from asap2.trace.model import Ending, Medium, Stage

HW, SW = Medium.HARDWARE, Medium.SOFTWARE


def _step(number: int, place: str, stage: Stage, medium: Medium, text: str, why: str | None = None) -> StepData:
    node, device = place.split(" ", 1)
    return {
        "microseconds": 12.5 * number,
        "node": node,
        "device": device,
        "stage": stage,
        "medium": medium,
        "text": text,
        "why": why,
        "rule": "nic0 rule 5" if text.startswith("rule") else None,
        "matches": ["eth_type IPv4"] if text.startswith("rule") else [],
        "actions": [],
        "connection": None,
        "rewritten": [("vlan", "none", "52")] if text == "leaves by wire p0" else [],
    }


def way(number: int, *, first: bool) -> WayData:
    """An echo request from a guest of hv1 to one of hv2; the *first* goes through Open vSwitch of hv1."""
    switch = (
        ("hv1 nic0", Stage.SILICON, HW, "no rule in chain 0 is for it", "the NIC has no rule"),
        ("hv1 eth0", Stage.REPRESENTOR, HW, "handed to the node at eth0", None),
        ("hv1 Open vSwitch", Stage.SWITCH, SW, "Open vSwitch executes its actions", None),
        ("hv1 enp3s0f0", Stage.REPRESENTOR, HW, "goes into the NIC by enp3s0f0", None),
    )
    silicon = (("hv1 nic0", Stage.SILICON, HW, "rule 5 in chain 0: push VLAN 52, output wire p0", None),)
    places = (
        ("hv1 hv1-vm0", Stage.VF, HW, "sent by VF eth0", None),
        *(switch if first else silicon),
        ("hv1 wire p0", Stage.CABLE, HW, "leaves by wire p0", None),
        ("hv2 wire p0", Stage.UPLINK, HW, "comes in by wire p0", None),
        ("hv2 nic0", Stage.SILICON, HW, "rule 7 in chain 0: pop VLAN, output hv2-vm0", None),
        ("hv2 hv2-vm0", Stage.DELIVERY, HW, "received by VF eth0", None),
    )
    steps = [_step(at, *one) for at, one in enumerate(places)]
    return {
        "number": number,
        "packet": f"ICMP echo request 10.0.0.1 > 10.0.0.2 seq {number}, 98 octets",
        "frame": "00" * 64,
        "octets": 98,
        "origin": "hv1-vm0",
        "targets": ["hv2-vm0"],
        "ending": Ending.DELIVERED,
        "in_hardware": not first,
        "began": 1_000_000 * number,
        "microseconds": steps[-1]["microseconds"],
        "steps": steps,
    }


def written(path: Path) -> Path:
    """A file with the first two packets of a flow."""
    path.write_text(json.dumps(marked("trace", {"lost": 0, "ways": [way(1, first=True), way(2, first=False)]})))
    return path
