# SPDX-License-Identifier: Apache-2.0
"""How long programs have run is the kernel's count, made only while somebody asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from asap2.nic.silicon import running_time
from asap2.nic.silicon.map_sizes import ONWARD, PROGRAM
from asap2.nic.silicon.pipeline import Pipeline, Port, PortKind
from tests.system.nic.silicon.conftest import MAC, VF1, VF2
from tests.system.nic.silicon.network import ethernet

LOOPBACK = 1


def test_runs_are_measured_while_they_are_counted_and_each_program_for_itself(pin_dir: Path) -> None:
    pipeline = Pipeline.open(pin_dir, max_rules=8, tracing=True)
    try:
        port = Port(VF1, LOOPBACK, PortKind.VF)
        pipeline.set_port(port)
        packet = ethernet(MAC[VF2], MAC[VF1])
        with running_time.counted():
            before = running_time.seconds(pin_dir / PROGRAM)
            pipeline.trace(packet, port)
            ran = running_time.seconds(pin_dir / PROGRAM)
        assert 0 < ran - before < 10
        assert running_time.seconds(pin_dir / ONWARD) == 0
    finally:
        pipeline.destroy()


def test_a_program_that_is_not_there_is_an_error(pin_dir: Path) -> None:
    with pytest.raises(FileNotFoundError):
        running_time.seconds(pin_dir / "nothing")
