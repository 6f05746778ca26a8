# SPDX-License-Identifier: Apache-2.0
"""`asap2 capture` and `asap2 trace --packet` in a lab of two nodes."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pcapng import FileScanner, blocks

from asap2.testing.looks import looks
from tests.schemas import answer
from tests.system.offload.labs import IPV4, Bench
from tests.system.patience import PATIENCE
from tests.system.trace.conftest import forget
from tests.system.trace.programs import watched
from tests.trace.test_ends import ALL, ASAP2
from tests.unit.trace.frames import echo


def packets(path: Path) -> list[tuple[str, Any]]:
    """The packets of a capture file, each with its interface's name."""
    names: list[str] = []
    found = []
    with path.open("rb") as file:
        for block in FileScanner(file):
            if isinstance(block, blocks.InterfaceDescription):
                names.append(block.options["if_name"])
            elif isinstance(block, blocks.EnhancedPacket):
                found.append((names[block.interface_id], block))
    return found


@pytest.fixture
def capturing(bench: Bench, tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A file, and the words of the command that captures the pings of a test into it. The test sends, then asks."""
    yield (
        tmp_path / "all.pcapng",
        [*ASAP2, "capture", "--filter", "icmp or (vlan and icmp)", "-w", str(tmp_path / "all.pcapng")],
    )
    assert any(watched(bench) == set() for _ in looks(PATIENCE))


def captured(bench: Bench, words: list[str], path: Path, command: str) -> list[tuple[str, Any]]:
    """What is captured while a command runs in vm1."""
    process = subprocess.Popen(words, env=bench.environment, stderr=subprocess.PIPE, text=True)
    try:
        assert any(watched(bench) == ALL for _ in looks(PATIENCE))
        bench.ok("vm1", command)
        time.sleep(0.1)  # the last reply is on its way to the ring buffer
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said
    assert "lost" not in said
    found = packets(path)
    assert f"{len(found)} packets were captured" in said
    return found


def test_frames_between_vfs_in_hardware_are_seen_at_both_with_the_rule(
    bench: Bench, capturing: tuple[Path, list[str]]
) -> None:
    path, words = capturing
    bench.guest("vm1").ping(bench.guest("vm3"), 2)
    found = captured(bench, words, path, "ping -c1 10.57.0.3")
    assert [name for name, _ in found] == ["vm1", "vm3", "vm3", "vm1"]
    assert [block.options["epb_flags"].inout for _, block in found] == ["outbound", "inbound"] * 2
    comments = [block.options["opt_comment"] for _, block in found]
    assert all(comment.startswith("eSwitch: rule ") for comment in comments), comments
    assert ["output vm3" in comment for comment in comments] == [True, True, False, False]
    times = [block.timestamp for _, block in found]
    assert times == sorted(times)
    assert abs(times[0] - time.time()) < PATIENCE
    shown = subprocess.run(["tcpdump", "-nr", path], capture_output=True, text=True, check=True).stdout
    assert shown.count("ICMP echo request") == shown.count("ICMP echo reply") == 2


def test_a_first_packet_is_on_the_slow_path_at_the_ports_of_both_nodes(
    bench: Bench, capturing: tuple[Path, list[str]]
) -> None:
    path, words = capturing
    forget(bench)
    found = captured(bench, [*words, "vm1", "hv1/eth0", "hv1/enp3s0f0", "hv2"], path, "ping -c1 10.57.0.2")
    requests = [(name, block) for name, block in found if block.packet_data[-64:][:1] == b"\x08"]
    assert [name for name, _ in requests] == [
        *("vm1", "hv1/eth0", "hv1/enp3s0f0"),
        *("hv2/nic0/p0", "hv2/enp3s0f0", "hv2/eth0"),
    ]
    assert all(block.options["opt_comment"].startswith("slow path") for _, block in requests)
    lengths = {name: block.packet_len for name, block in requests}
    assert (lengths["vm1"], lengths["hv2/nic0/p0"], lengths["hv2/eth0"]) == (98, 102, 98)


def test_a_capture_goes_into_a_pipe(bench: Bench) -> None:
    bench.guest("vm1").ping(bench.guest("vm3"), 2)
    words = [*ASAP2, "capture", "-w", "-", "--count", "4", "--filter", "icmp", "vm1"]
    tcpdump = ["tcpdump", "-nr", "-"]
    with subprocess.Popen(words, env=bench.environment, stdout=subprocess.PIPE) as capture:
        assert any(watched(bench) == ALL for _ in looks(PATIENCE))
        bench.ok("vm1", "ping -c2 -i0.2 10.57.0.3")
        shown = subprocess.run(tcpdump, stdin=capture.stdout, capture_output=True, text=True, check=True).stdout
        assert capture.wait(PATIENCE) == 0
    assert shown.count("ICMP echo") == 4


def test_a_port_that_there_is_not_is_told_with_those_that_there_are(bench: Bench, tmp_path: Path) -> None:
    refused = bench.asap2("capture", "-w", str(tmp_path / "no"), "hv1/eth9", check=False, timeout=PATIENCE)
    assert refused.returncode == 2
    assert "there is no port hv1/eth9; there are " in refused.stderr
    assert "hv1/nic0/p0" in refused.stderr
    assert not (tmp_path / "no").exists()


def test_what_would_happen_is_told_without_sending(bench: Bench) -> None:
    bench.guest("vm1").ping(bench.guest("vm2"), 2)
    before = counted(bench)

    def asked(frame: bytes, *words: str) -> dict[str, Any]:
        done = bench.asap2("trace", "--json", "--packet", frame.hex(), *words, timeout=PATIENCE)
        (way,) = answer(done.stdout)["ways"]
        return dict(way)

    known = asked(echo(8, 1), "vm1")
    assert (known["targets"], known["in_hardware"]) == (["vm2"], True)
    assert [step["stage"] for step in known["steps"]] == ["vf", "silicon", "cable", "uplink", "silicon", "delivery"]
    unknown = asked(b"\x02" + echo(8, 1)[1:], "vm1")
    assert (unknown["targets"], unknown["steps"][-1]["stage"]) == ([], "upcall")
    assert "wants eth_dst" in unknown["steps"][1]["why"]
    assert asked(echo(0, 1), "hv1/eth0")["targets"] == ["vm1"]
    text = bench.asap2("trace", "--packet", echo(8, 1).hex(), "vm1", timeout=PATIENCE).stdout
    assert text.splitlines()[-1] == "  vm2 would get it"
    assert "µs" not in text
    for wrong in (["--packet", "zz", "vm1"], ["--packet", "00", "vm1"], ["--packet", "00" * 14]):
        assert bench.asap2("trace", *wrong, check=False, timeout=PATIENCE).returncode == 2
    assert counted(bench) == before


def counted(bench: Bench) -> list[str]:
    """The packets of each flow of IPv4 on hv1."""
    return sorted(line.split("packets:")[1].split(",")[0] for line in bench.flows("hv1", IPV4))
