# SPDX-License-Identifier: Apache-2.0
"""How `asap2 trace` ends, and what it prints for people."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from asap2.testing.looks import looks
from tests.system.offload.labs import Bench
from tests.system.patience import PATIENCE
from tests.system.trace.programs import watched

ASAP2 = [sys.executable, "-m", "asap2.cli.main"]
ALL = {"hv1/node", "hv1/nic0", "hv2/node", "hv2/nic0"}


def test_text_is_a_line_a_step_and_ends_with_the_round_trip(bench: Bench) -> None:
    bench.guest("vm1").ping(bench.guest("vm3"), 2)
    shown = bench.asap2("trace", "--filter", "icmp", "vm1", "ping -c1 10.57.0.3", timeout=PATIENCE).stdout
    assert re.search(r"^packet \d+: ICMP echo request 10.57.0.1 > 10.57.0.3 seq 1, 98 octets$", shown, re.M)
    assert re.search(r"^ +0\.0 µs  hw  hv1 vm1 +sent by VF enp3s0f0v0$", shown, re.M)
    assert re.search(r"^ +[\d.]+ µs  hw  hv1 nic0 +rule \d+ in chain 0: output vm3$", shown, re.M)
    assert re.search(r"^  vm1 to vm3 in [\d.]+ µs, in hardware alone$", shown, re.M)
    assert re.search(r"^round trip of seq 1: [\d.]+ ms \(there ", shown, re.M)


@pytest.mark.parametrize("client", ["killed", "daemon killed"])
def test_the_programs_are_back_however_a_trace_ends(bench: Bench, client: str) -> None:
    process = subprocess.Popen(
        [*ASAP2, "trace"], env=bench.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert any(watched(bench) == ALL for _ in looks(PATIENCE))
        refused = bench.asap2("trace", "--seconds", "1", check=False, timeout=PATIENCE)
        assert refused.returncode == 1
        assert f"process {process.pid} watches its packets already" in refused.stderr
        if client == "killed":
            process.kill()
            process.wait()
        else:
            for node in bench.nodes:
                os.kill(int((bench.root / "nodes" / node.name / "daemon.pid").read_text()), signal.SIGKILL)
            assert process.wait(PATIENCE) == 1
            assert process.stderr is not None
            assert re.search(r"the daemon of hv\d ended, and the trace with it", process.stderr.read())
        assert any(watched(bench) == set() for _ in looks(PATIENCE))
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
    bench.guest("vm1").ping(bench.guest("vm2"), 2)
