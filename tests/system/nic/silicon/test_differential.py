# SPDX-License-Identifier: Apache-2.0
"""The eBPF program and the reference eSwitch do the same with random frames under random, changing rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random, SystemRandom

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asap2.nic.silicon.pipeline import Miss, Pipeline, Port, PortKind
from tests.system.nic.silicon.authors import program
from tests.system.nic.silicon.both import Both
from tests.system.nic.silicon.campaign import CACHES, campaign, network_of_its_own, tracing_pipeline
from tests.system.nic.silicon.frames import frame
from tests.system.nic.silicon.random_actions import random_tunnel
from tests.system.nic.silicon.regressions import REGRESSIONS
from tests.system.nic.silicon.steps import Send, SetPorts

CASES = 100_000
"""Packets for each seed."""


@pytest.fixture(scope="module")
def pipelines(bpffs: Path) -> Iterator[list[Pipeline]]:
    """Programs that tell what they would do. With two places, entries of the cache displace one another."""
    with network_of_its_own():
        opened = [tracing_pipeline(bpffs, cache) for cache in CACHES]
        yield opened
        for pipeline in opened:
            pipeline.destroy()


@pytest.mark.parametrize("seed", [1, SystemRandom().randrange(1 << 31)], ids=["fixed seed", "new seed"])
def test_program_and_reference_agree_on_many_packets(pipelines: list[Pipeline], seed: int) -> None:
    print(f"python -m tests.system.nic.silicon --seed {seed} --cases {CASES}")
    found = campaign(pipelines, seed, CASES)
    assert found is None, f"seed {seed}, {found}"


@settings(
    max_examples=60,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
    ],
)
@given(random=st.randoms(use_true_random=False), which=st.sampled_from([0, 1]))
def test_program_and_reference_agree(pipelines: list[Pipeline], random: Random, which: int) -> None:
    Both(pipelines[which]).run(program(random, packets=10))


@pytest.mark.parametrize("seed", range(3))
def test_every_field_is_read_alike(pipelines: list[Pipeline], seed: int) -> None:
    random = Random(seed)
    port = Port(1, 101, PortKind.VF, miss=Miss.UPCALL, metadata=seed > 0)
    tunnels = [None, random_tunnel(random)]
    sent = [Send(frame(random), in_metadata=random.random() < 0.5, came_in=random.choice(tunnels)) for _ in range(2000)]
    Both(pipelines[0]).run([SetPorts((port,)), *sent])


@pytest.mark.parametrize("name", REGRESSIONS)
def test_what_once_differed_agrees(pipelines: list[Pipeline], name: str) -> None:
    for pipeline in pipelines:
        Both(pipeline).run(REGRESSIONS[name])
