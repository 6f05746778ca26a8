# SPDX-License-Identifier: Apache-2.0
"""The files that bring the same back at boot."""

from __future__ import annotations

import dataclasses
import subprocess
import tomllib
from pathlib import Path

import pytest

from asap2.host.records import from_data
from asap2.host.setup.persist import CONFIG, RULES, UNIT, escaped, files, rules, unit, wanted_now
from asap2.host.setup.plan import plan
from asap2.host.setup.target import RefusedError, setup_target
from asap2.host.setup.wanted import VfWanted, Wanted
from tests.unit.host.hosts import SWITCH_ID, fresh, offloading, with_netdev, with_pf


def test_what_is_there_is_what_is_wanted() -> None:
    host = offloading()
    vfs = (dataclasses.replace(host.pfs[0].vfs[0], mac="02:00:00:00:00:01"), host.pfs[0].vfs[1])
    host = with_pf(host, vfs=vfs)
    (nic,) = wanted_now(host).nic
    assert (nic.pf, nic.vfs, nic.encap, nic.steering) == ("0000:03:00.0", 2, True, "dmfs")
    assert nic.representor_names == ("eth0", "eth1")
    assert nic.vf == (VfWanted(0, "02:00:00:00:00:01"),)
    written = from_data(Wanted, tomllib.loads(files(host)[CONFIG]))
    assert written == wanted_now(host)
    assert plan(host, setup_target(host, dataclasses.replace(written, nic_only=True))) == ()


def test_nothing_is_kept_where_nothing_is_set_up() -> None:
    with pytest.raises(RefusedError, match="no NIC is in switchdev mode"):
        files(fresh())


def test_the_unit_runs_before_open_vswitch_and_after_the_nic_is_there() -> None:
    sections = unit(offloading(), "asap2")
    assert "After=local-fs.target systemd-modules-load.service sys-subsystem-net-devices-enp3s0f0.device\n" in sections
    before = next(line for line in sections.splitlines() if line.startswith("Before="))
    assert {"network-pre.target", "ovs-vswitchd.service", "NetworkManager.service"} <= set(before[7:].split())
    assert f"ExecStart=asap2 host setup --nic-only --force --config {CONFIG}\n" in sections
    assert files(offloading()).keys() == {CONFIG, UNIT, RULES}


def test_systemd_has_nothing_to_say_against_the_unit(tmp_path: Path) -> None:
    path = tmp_path / "asap2-host.service"
    path.write_text(unit(offloading(), "/bin/true"))
    command = ["systemd-analyze", "verify", "--recursive-errors=no", "--man=no", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if path.name in line]
    assert ours == []


def test_rules_keep_network_manager_off_and_names_that_the_kernel_does_not_count() -> None:
    host = with_netdev(offloading(), "eth1", name="rep1")
    lines = list(rules(host))
    match = f'SUBSYSTEM=="net", ACTION=="add", ATTR{{phys_switch_id}}=="{SWITCH_ID}", ATTR{{phys_port_name}}=='
    assert f'{match}"*vf*", ENV{{NM_UNMANAGED}}="1"' in lines
    assert f'{match}"pf0vf1", NAME="rep1"' in lines
    assert not any('NAME="eth0"' in line for line in lines)
    wants = 'TAG+="systemd", ENV{SYSTEMD_WANTS}+="asap2-host.service"'
    assert f'SUBSYSTEM=="net", ACTION=="add", KERNELS=="0000:03:00.0", {wants}' in lines


@pytest.mark.parametrize(("name", "unit_part"), [("enp3s0f0", "enp3s0f0"), ("eth-x", r"eth\x2dx"), ("a.b", "a.b")])
def test_names_are_escaped_as_systemd_does(name: str, unit_part: str) -> None:
    assert escaped(name) == unit_part
