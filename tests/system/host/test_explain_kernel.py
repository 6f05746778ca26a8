# SPDX-License-Identifier: Apache-2.0
"""``asap2 host explain`` beside Open vSwitch on a real kernel (Linux 6.1 as user-mode-linux), for what a node has not:
connection tracking in TC, the datapath's hash, NSH, ports that TC has no qdisc for, and no recirculation with TC.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.system.host.conftest import REPOSITORY
from tests.system.packages import skip_without
from tests.system.patience import PATIENCE

INIT = Path(__file__).with_name("kernel_guest.sh")


class Explained:
    """What was explained on the kernel: a switch whose first port TC had no qdisc for; the same started anew; and that
    with a rule for packets of a service function path."""

    def __init__(self, results: Path) -> None:
        self.results = results

    def flow(self, switch: str, *parts: str) -> dict[str, Any]:
        """The flow that has all *parts* in its text."""
        data = json.loads((self.results / f"{switch}.json").read_text())
        found = [one for one in data["flows"] if all(part in one["flow"] for part in parts)]
        assert len(found) == 1, [one["flow"] for one in data["flows"]]
        return dict(found[0])


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Explained:
    """The kernel's run, to its end."""
    skip_without("user-mode-linux")
    program = shutil.which("linux.uml")
    if program is None:
        pytest.fail("linux.uml is not there: install Debian's package user-mode-linux (make setup-tests does)")
    results = tmp_path_factory.mktemp("kernel")
    command = ["setpriv", "--pdeathsig", "TERM", program, "mem=256M", f"uml_dir={results}/", "quiet", "root=/dev/root"]
    command += ["rootfstype=hostfs", "ro", "con=null", "con0=null,fd:1", f"init={INIT}", "--"]
    command += [str(REPOSITORY), str(results), ":".join(path for path in sys.path if path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
    console = results / "console"
    assert (results / "served.json").exists(), done.stdout + (console.read_text() if console.exists() else "")
    return Explained(results)


@pytest.mark.parametrize(
    ("code", "switch", "parts", "dp", "source"),
    [
        ("port.no-flow-api", "unprepared", ["in_port(p1)"], "ovs", "log"),
        ("action.flow-api", "unprepared", ["in_port(d1)"], "ovs", "log"),
        ("match.dp-hash", "prepared", ["in_port(p1)", "dp_hash(0x"], "ovs", "flow"),
        ("action.ct-helper", "prepared", ["in_port(p1)", "dst=10.9.0.5", "helper=ftp"], "ovs", "flow"),
        ("action.recirculate", "prepared", ["in_port(p1)", "actions:ct,recirc(0x5)"], "ovs", "flow"),
        ("match.ct-state", "prepared", ["in_port(p1)", "dst=10.9.0.9"], "ovs", "flow"),
        ("match.nsh", "served", ["in_port(p1)", "nsh(mdtype=1,spi=0x5)"], "ovs", "flow"),
        ("match.ct-tuple", "prepared", ["in_port(p1)", "dst=10.9.0.10"], "ovs", "flow"),
        (
            "port.not-nic",
            "prepared",
            ["in_port(p1)", "dst=10.9.0.7", "nat(src=10.8.0.1-10.8.0.9:1000-2000)"],
            "tc",
            "host",
        ),
        ("port.not-nic", "prepared", ["in_port(p1)", "dst=10.9.0.8"], "tc", "host"),
    ],
)
def test_what_a_real_kernels_switch_does_not_offload_is_told(
    kernel: Explained, code: str, switch: str, parts: list[str], dp: str, source: str
) -> None:
    found = kernel.flow(switch, *parts)
    assert (found["code"], found["dp"]) == (code, dp), found
    assert source in [one["source"] for one in found["evidence"]]


def test_no_flow_of_a_real_kernel_is_left_unexplained(kernel: Explained) -> None:
    for switch in ("unprepared", "prepared", "served"):
        codes = json.loads((kernel.results / f"{switch}.json").read_text())["reasons"]
        assert codes
        assert not [code for code in codes if code.endswith("unexplained")], codes
