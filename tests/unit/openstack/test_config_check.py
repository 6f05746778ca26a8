# SPDX-License-Identifier: Apache-2.0
"""The rules of ``--check``, on what nova and neutron could have said. What they do say: tests/e2e/openstack."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from asap2.cli.main import main
from asap2.errors import Asap2Error, UsageError
from asap2.host.check.finding import Finding, Verdict
from asap2.host.inventory import Host
from asap2.openstack.config.check import interpreter
from asap2.openstack.config.check.answers import Entry, Settings, Spec
from asap2.openstack.config.check.names import names
from asap2.openstack.config.check.network import network
from asap2.openstack.config.check.pci import pci
from asap2.openstack.config.check.reading import Reading, read
from asap2.openstack.config.check.run import asked, judged
from tests.unit.host.hosts import PF, fresh, with_netdev, with_pf
from tests.unit.openstack.test_config_values import host

VFS = ("0000:03:00.2", "0000:03:00.3")
GOOD: dict[str, Any] = {
    "vendor_id": "15b3",
    "product_id": "1018",
    "address": "0000:03:00.0",
    "physical_network": "default",
}


def entry(name: str, value: str = "", line: int = 1, known: str = "yes", **more: Any) -> Entry:
    """An entry ``service/section/key``."""
    service, section, key = name.split("/")
    return Entry(service, f"{service}.conf", line, section, key, value, known, **more)


def spec(matches: tuple[str, ...] = VFS, line: int = 1, **data: Any) -> Spec:
    """An entry of device_spec that nova takes."""
    return Spec("nova.conf", line, json.dumps(data), data=data, matches=matches)


def settings(*entries: Entry, specs: tuple[Spec, ...] = (), where: Host | None = None, **more: Any) -> Settings:
    """Settings for *where*, a host with four VFs that is set up."""
    one = where or host()
    return Settings(entries, specs, host=one, pfs=one.pfs, **more)


def bad(findings: Any) -> list[tuple[str, str]]:
    """The ids and sentences of what is not right."""
    return [(one.id, one.found) for one in findings if one.verdict in (Verdict.FAIL, Verdict.WARN)]


def only(findings: Any) -> Finding:
    """The one finding that is not ok."""
    (found,) = [one for one in findings if one.verdict is not Verdict.OK]
    return found  # type: ignore[no-any-return]


# ---- names


def test_what_is_known_is_not_spoken_of() -> None:
    assert list(names(settings(entry("nova/pci/device_spec", "{}"), entry("nova/DEFAULT/my_ip", "10.0.0.1")))) == []


def test_an_unknown_key_is_named_with_its_place_and_what_may_be_meant() -> None:
    found = only(names(settings(entry("nova/pci/device_spek", "{}", 7, "no", like="device_spec"))))
    assert (found.subject, found.found, found.fix) == (
        "nova.conf:7",
        "[pci] has no device_spek",
        "is device_spec meant?",
    )
    assert found.verdict is Verdict.FAIL


def test_a_key_in_a_wrong_section_is_told_the_right_one() -> None:
    one = entry("nova/DEFAULT/enabled_filters", "a", 3, "no", elsewhere=("filter_scheduler",))
    found = only(names(settings(one)))
    assert found.found == "[DEFAULT] has no enabled_filters; enabled_filters is of [filter_scheduler]"
    assert found.fix == "move it to [filter_scheduler]"


@pytest.mark.parametrize(
    ("one", "verdict", "fix"),
    [
        (entry("nova/pcie/alias", known="section", section_like="pci", elsewhere=("pci",)), "fail", "is [pci] meant?"),
        (entry("nova/hardware/device_spec", known="section", elsewhere=("pci",)), "fail", "is [pci] meant?"),
        (entry("nova/placement_database/connection", known="section", elsewhere=("database",)), "warn", None),
        (entry("neutron/ml2_other/tokens", known="section"), "warn", None),
    ],
)
def test_a_section_that_nobody_has(one: Entry, verdict: str, fix: str | None) -> None:
    found = only(names(settings(one)))
    assert (found.verdict, found.fix) == (verdict, fix)


def test_old_names_wrong_values_and_options_that_go_are_told() -> None:
    old = entry("nova/pci/passthrough_whitelist", "{}", 2, "old", now=("pci", "device_spec"), multiple=True)
    wrong = entry("nova/pci/report_in_placement", "maybe", 3, error="Unexpected boolean value 'maybe'")
    going = entry("nova/glance/api_servers", "x", 4, removal="Use endpoint_override.")
    found = list(names(settings(old, wrong, going)))
    assert [(one.id, one.verdict) for one in found] == [("old-name", "warn"), ("value", "fail"), ("goes-away", "warn")]
    assert found[0].found == "[pci] passthrough_whitelist is an old name of [pci] device_spec"
    assert found[1].found == "[pci] report_in_placement = maybe: Unexpected boolean value 'maybe'"
    assert found[2].why == "Use endpoint_override."


def test_an_option_that_is_set_twice_is_told_unless_it_has_many_values() -> None:
    twice = [entry("nova/DEFAULT/my_ip", value, line) for line, value in ((4, "a"), (9, "b"))]
    many = [entry("nova/pci/device_spec", "{}", line, multiple=True) for line in (5, 6)]
    found = only(names(settings(*twice, *many)))
    assert found.found == "[DEFAULT] my_ip is set 2 times, in lines 4, 9"


def test_a_file_that_cannot_be_parsed_is_a_failure() -> None:
    found = only(names(settings(parse_errors=(("nova.conf", 5, "No ':' or '=' found in assignment"),))))
    assert (found.verdict, found.subject) == (Verdict.FAIL, "nova.conf:5")


# ---- device_spec


def test_a_good_entry_says_what_it_gives() -> None:
    (found,) = pci(settings(specs=(spec(**GOOD),)))
    assert (found.verdict, found.found) == (Verdict.OK, "VFs 0, 1 of enp3s0f0, for physical network default")


def test_nova_s_refusal_is_its_own_words() -> None:
    one = Spec("local.conf", 9, "{a}", refusal="Invalid entry")
    found = only(pci(settings(specs=(one,))))
    assert found.found == "nova refuses {a}: Invalid entry"
    assert found.fix is not None
    assert found.fix.startswith("devstack evaluates it between double quotes")


@pytest.mark.parametrize(
    ("changes", "id", "found"),
    [
        ({"trusted": True}, "device_spec.tag", "trusted is true without quotes"),
        ({"remote_managed": "yes"}, "device_spec.tag", "remote_managed is true"),
        ({"physical_network": "null"}, "device_spec.network", 'physical_network is the text "null"'),
        ({"physical_network": ""}, "device_spec.network", 'physical_network is the text ""'),
    ],
)
def test_values_that_nova_takes_and_that_mean_something_else(changes: dict[str, Any], id: str, found: str) -> None:
    assert (id, found) in bad(pci(settings(specs=(spec(**GOOD | changes),))))


def test_tunnels_null_is_right() -> None:
    (found,) = pci(settings(specs=(spec(**GOOD | {"physical_network": None}),)))
    assert found.found == "VFs 0, 1 of enp3s0f0, for networks that are tunnels"


def test_unknown_keys_are_named_and_the_capability_sent_to_the_port() -> None:
    one = dataclasses.replace(spec(**GOOD), unknown=(("physnet", "physical_network"), ("capabilities", None)))
    found = [each for each in pci(settings(specs=(one,))) if each.verdict is Verdict.FAIL]
    assert [(each.id, each.found) for each in found] == [
        ("device_spec.key", "device_spec has no key physnet"),
        ("device_spec.switchdev", "device_spec has no key capabilities"),
    ]
    assert found[0].fix == "is physical_network meant?"
    assert "binding-profile" in (found[1].fix or "")


def test_no_physical_network_is_a_warning() -> None:
    data = {key: value for key, value in GOOD.items() if key != "physical_network"}
    assert bad(pci(settings(specs=(spec(**data),)))) == [("device_spec.network", "there is no physical_network")]


@pytest.mark.parametrize(
    ("data", "fix"),
    [
        ({"devname": "ens9"}, "there is no PF ens9 here; there is enp3s0f0"),
        ({"vendor_id": "8086"}, "vendor_id here is 15b3"),
        ({"product_id": "1017"}, "product_id 1017 is the PF enp3s0f0 here; VFs have 1018"),
        ({"product_id": "1016"}, "product_id 1016 is none here; VFs have 1018"),
        ({"address": "0000:09:00.0"}, "PFs here are at 0000:03:00.0; a PF's address matches all of its VFs"),
    ],
)
def test_an_entry_that_matches_nothing_says_what_is_here(data: dict[str, Any], fix: str) -> None:
    found = only(pci(settings(specs=(spec((), **data, physical_network="default"),))))
    assert found.verdict is Verdict.FAIL
    assert found.found.endswith("matches no device of hv1")
    assert found.fix == fix


def test_a_nic_without_vfs_is_to_be_set_up() -> None:
    where = with_pf(fresh(), vf_device=0x1018)
    found = only(pci(settings(specs=(spec((), **GOOD),), where=where)))
    assert found.fix == "enp3s0f0 has no VFs: asap2 host setup --vfs 4 enp3s0f0"


def test_the_pf_itself_and_legacy_mode_are_told() -> None:
    where = with_pf(host(), eswitch=dataclasses.replace(host().pfs[0].eswitch, mode="legacy"))  # type: ignore[type-var]
    found = bad(pci(settings(specs=(spec(("0000:03:00.0", *VFS), **GOOD),), where=where)))
    assert found == [
        ("device_spec.pf", "it matches the PF enp3s0f0, too"),
        ("switchdev", "enp3s0f0, whose VFs it matches, is in legacy mode"),
    ]


def test_vfs_of_two_entries_go_to_the_first() -> None:
    both = (spec(**GOOD), spec(line=2, **GOOD | {"physical_network": None}))
    found = only(pci(settings(specs=both)))
    assert (found.subject, found.found) == (
        "nova.conf:2",
        "0000:03:00.2, 0000:03:00.3 match the entry at nova.conf:1 already, for another network",
    )


def test_without_nics_matching_is_not_judged() -> None:
    one = Settings((), (spec((), **GOOD),))
    assert bad(pci(one)) == []
    assert [(each.id, each.verdict) for each in judged(one, Reading()) if each.verdict is Verdict.UNKNOWN] == [
        ("device_spec.match", "unknown")
    ]


# ---- between files

FILTERS = entry("nova/filter_scheduler/enabled_filters", "ComputeFilter,PciPassthroughFilter")
OVN = entry("neutron/ml2/mechanism_drivers", "ovn")
RANGES = entry("neutron/ml2_type_vlan/network_vlan_ranges", "default:100:199")
MAPPINGS = entry("neutron/ovs/bridge_mappings", "default:br-phys")
TYPES = entry("neutron/agent/tunnel_types", "vxlan")
TUNNEL = spec(VFS[1:], line=2, **GOOD | {"physical_network": None})


def test_settings_that_go_together() -> None:
    where = with_netdev(host(), PF, addresses=("10.1.0.1/24",))
    end = entry("neutron/ovs/local_ip", "10.1.0.1")
    drivers = entry("neutron/ml2/mechanism_drivers", "openvswitch,l2population")
    all_filters = ("ComputeFilter", "PciPassthroughFilter")
    one = settings(
        FILTERS, RANGES, MAPPINGS, TYPES, end, drivers, specs=(spec(**GOOD), TUNNEL), where=where, filters=all_filters
    )
    found = list(network(one))
    assert {each.verdict for each in found} == {Verdict.OK}
    assert "default is br-phys, with enp3s0f0" in [each.found for each in found]


def test_settings_of_ovn_that_go_together() -> None:
    entries = (
        OVN,
        entry("neutron/DEFAULT/service_plugins", "ovn-router,trunk"),
        entry("neutron/ovn/enable_distributed_floating_ip", "True"),
        entry("neutron/ovn/ovn_emit_need_to_frag", "false"),
    )
    assert bad(network(settings(*entries))) == []
    agent = (
        entry("neutron/ovs/ovsdb_connection", "unix:/run"),
        entry("neutron/ovn/ovn_sb_connection", "tcp:1.1.1.1:6642"),
    )
    assert bad(network(settings(*agent, specs=(spec(**GOOD),)))) == []


@pytest.mark.parametrize(
    ("entries", "id", "found"),
    [
        (
            (entry("nova/filter_scheduler/enabled_filters", "ComputeFilter"),),
            "scheduler.filter",
            "enabled_filters lacks PciPassthroughFilter",
        ),
        (
            (entry("nova/filter_scheduler/enabled_filters", "RetryFilter,PciPassthroughFilter"),),
            "scheduler.filter",
            "nova has no filter RetryFilter",
        ),
        (
            (entry("neutron/ml2/mechanism_drivers", "linuxbridge"),),
            "neutron.driver",
            "mechanism_drivers is linuxbridge",
        ),
        (
            (entry("neutron/ml2/mechanism_drivers", "openvswitch,sriovnicswitch"),),
            "neutron.driver",
            "mechanism_drivers has sriovnicswitch, too",
        ),
        (
            (entry("neutron/ovs_driver/vnic_type_prohibit_list", "direct"),),
            "neutron.driver",
            "vnic_type_prohibit_list has direct",
        ),
        ((entry("neutron/ovs/datapath_type", "netdev"),), "neutron.datapath", "datapath_type is netdev"),
        (
            (entry("neutron/securitygroup/firewall_driver", "iptables_hybrid"),),
            "neutron.firewall",
            "firewall_driver is iptables_hybrid",
        ),
        (
            (entry("neutron/securitygroup/firewall_driver", "noop"),),
            "neutron.firewall",
            "firewall_driver is noop",
        ),
        (
            (entry("neutron/securitygroup/enable_security_group", "False"),),
            "neutron.firewall",
            "security groups are off",
        ),
        ((OVN,), "ovn.mtu", "ovn_emit_need_to_frag is not set, and true by default"),
        ((OVN, entry("neutron/ovn/ovn_emit_need_to_frag", "true")), "ovn.mtu", "ovn_emit_need_to_frag is true"),
        ((OVN,), "ovn.floating-ip", "floating IPs are not distributed"),
        (
            (OVN, entry("neutron/DEFAULT/service_plugins", "router")),
            "ovn.router",
            "service_plugins is router, without ovn-router",
        ),
        (
            (OVN, entry("neutron/securitygroup/firewall_driver", "openvswitch")),
            "neutron.firewall",
            "firewall_driver is openvswitch",
        ),
        (
            (entry("neutron/ovs/bridge_mappings", "other:br-phys"),),
            "physical-network",
            "physical network default has no bridge in bridge_mappings, which has other",
        ),
        (
            (entry("neutron/agent/l2_population", "true"),),
            "physical-network",
            "physical network default has no bridge in bridge_mappings, which has none",
        ),
        (
            (entry("neutron/ml2_type_vlan/network_vlan_ranges", "other:1:9"),),
            "physical-network",
            "physical network default is in neither network_vlan_ranges nor flat_networks",
        ),
        ((entry("neutron/ovs/bridge_mappings", "default:br-int"),), "bridge", "default is mapped to br-int"),
        ((entry("neutron/ovs/bridge_mappings", "default:br-none"),), "bridge", "there is no bridge br-none on hv1"),
        (
            (entry("neutron/ovs/bridge_mappings", "default:br-much-too-long"),),
            "bridge",
            "br-much-too-long has 16 characters, and 11 is the most",
        ),
        ((MAPPINGS, TYPES), "tunnel", "tunnel_types is vxlan, and there is no [ovs] local_ip"),
        (
            (MAPPINGS, TYPES, entry("neutron/ovs/local_ip", "10.9.9.9")),
            "tunnel",
            "local_ip 10.9.9.9 is no address of hv1",
        ),
        ((MAPPINGS, TYPES), "tunnel", "tunnel_types has vxlan, and no entry of device_spec is for tunnels"),
    ],
)
def test_settings_that_do_not_go_together(entries: tuple[Entry, ...], id: str, found: str) -> None:
    one = settings(*entries, specs=(spec(**GOOD),), filters=("ComputeFilter", "PciPassthroughFilter"))
    assert any(each[0] == id and each[1].startswith(found) for each in bad(network(one)))


def test_an_uplink_that_is_in_no_bridge_or_another_is_told_with_the_command() -> None:
    one = settings(entry("neutron/ovs/bridge_mappings", "default:br-two"), specs=(spec(**GOOD),))
    assert one.host is not None
    (bridge,) = one.host.openvswitch.bridges
    two = dataclasses.replace(bridge, name="br-two", ports=())
    switch = dataclasses.replace(one.host.openvswitch, bridges=(bridge, two))
    found = only(network(dataclasses.replace(one, host=dataclasses.replace(one.host, openvswitch=switch))))
    assert found.found == "br-two has no port enp3s0f0, which is in br-phys"
    assert found.fix == "ovs-vsctl del-port br-phys enp3s0f0 -- add-port br-two enp3s0f0"


def test_flat_networks_are_networks_and_old_names_count() -> None:
    flat = entry("neutron/ml2_type_flat/flat_networks", "*")
    ranges = entry("neutron/ml2_type_vlan/network_vlan_ranges", "")
    assert not [one for one in bad(network(settings(flat, ranges, specs=(spec(**GOOD),)))) if "neither" in one[1]]
    old = entry("neutron/OLD/maps", "default:br-phys", known="old", now=("ovs", "bridge_mappings"))
    assert bad(network(settings(old, specs=(spec(**GOOD),)))) == []


def test_a_scheduler_that_says_nothing_is_not_judged() -> None:
    found = only(network(settings(entry("nova/DEFAULT/my_ip", "10.0.0.1"))))
    assert (found.id, found.verdict) == ("scheduler.filter", Verdict.UNKNOWN)


# ---- files


@pytest.mark.parametrize(
    ("name", "text", "service"),
    [
        ("nova-compute.conf", "", "nova"),
        ("openvswitch_agent.ini", "", "neutron"),
        ("asap2.conf", "[pci]\na = 1\n", "nova"),
        ("asap2.conf", "[ovs]\na = 1\n[securitygroup]\n", "neutron"),
        ("nova/asap2.conf", "[DEFAULT]\na = 1\n", "nova"),
    ],
)
def test_a_file_is_its_services_by_name_section_or_directory(
    tmp_path: Path, name: str, text: str, service: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert read([str(tmp_path)]).services == [service]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("what.conf", b"[x]\na = 1\n", "does not tell whether it is nova's or neutron's"),
        ("nova.conf", b"\xff\xfe", "cannot be read: it is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path: Path, name: str, text: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(text)
    with pytest.raises(UsageError, match=said):
        read([str(path)])


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no .*nova\.conf"):
        read([str(tmp_path / "nova.conf")])
    with pytest.raises(UsageError, match="there is nothing to check"):
        read([str(tmp_path)])


# ---- asking


def test_what_is_asked_of_each_service_and_what_is_made_of_the_answers(tmp_path: Path) -> None:
    (tmp_path / "nova.conf").write_text("[pci]\n")
    (tmp_path / "ml2_conf.ini").write_text("[ml2]\n")
    questions: dict[str, Any] = {}

    def ask(service: str, question: dict[str, Any]) -> dict[str, Any]:
        questions[service] = question
        one = {"path": "nova.conf", "line": 2, "section": "pci", "key": "device_spec", "value": "{}", "known": "yes"}
        given = {"path": "nova.conf", "line": 2, "text": "{}", "data": {}, "unknown": {}, "matches": [VFS[0]]}
        if service == "neutron":
            return {"entries": [], "parse_errors": [], "unlisted": ["x"], "version": "26"}
        rest: dict[str, Any] = {"filters": ["A"], "parse_errors": [], "unlisted": [], "version": "31"}
        return {"entries": [one], "specs": [given], **rest}

    where = host(2)
    found = asked(read([str(tmp_path)]), where, where.pfs, False, ask)
    assert questions["nova"]["files"] == [{"path": str(tmp_path / "nova.conf"), "text": "[pci]\n"}]
    assert questions["nova"]["devices"][1] == {
        "address": "0000:03:00.2",
        "vendor_id": "15b3",
        "product_id": "1018",
        "parent_addr": "0000:03:00.0",
        "dev_type": "type-VF",
        "netdev": "enp3s0f0v0",
    }
    assert found.specs[0].matches == (VFS[0],)
    assert (found.filters, found.unlisted, found.versions) == (("A",), ("x",), (("nova", "31"), ("neutron", "26")))


def test_without_nova_there_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(interpreter, "candidates", lambda _service: ["/usr/bin/false", "/nonexistent"])
    path = tmp_path / "nova.conf"
    path.write_text("[pci]\n")
    assert main(["openstack", "config", "--check", str(path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("asap2: nova is not installed here, and --check asks its own parsers: run it where")
    assert said.count("\n") == 1
    assert main(["openstack", "config", "--check", "--python", "/usr/bin/false", str(path)]) == 2
    assert "/usr/bin/false has no nova" in capsys.readouterr().err


def test_a_program_that_does_not_answer_is_an_error_with_its_last_line(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho first >&2\necho 'ImportError: no thing' >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(Asap2Error, match=r"nova of .* does not load: ImportError: no thing"):
        interpreter.ask(str(python), {"service": "nova"})


@pytest.mark.parametrize(
    "words", [["--check", "--topology", "x"], ["--check", "--output", "x"], ["--python", "x"], ["--node", "x"]]
)
def test_options_of_the_other_half_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["openstack", "config", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
