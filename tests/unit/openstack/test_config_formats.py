# SPDX-License-Identifier: Apache-2.0
"""The files of each format. That nova, neutron and devstack take them is seen in tests/e2e/openstack."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from asap2.cli.main import main
from asap2.errors import Asap2Error, UsageError
from asap2.host import capture
from asap2.lab.topology import parse
from asap2.openstack.config.devstack import shell
from asap2.openstack.config.files import File, ini, write
from asap2.openstack.config.generate import Format, Role, generate
from asap2.openstack.config.nodes import of_topology
from asap2.openstack.config.values import Values, Wanted, resolve
from asap2.openstack.mechanism import Mechanism
from tests.unit.openstack.test_config_values import TWO_NODES, host

LOCAL_IPS = (("hv1", "10.1.0.1"), ("hv2", "10.1.0.2"), ("controller", "10.1.0.9"))


def both(mechanism: Mechanism = Mechanism.OPENVSWITCH) -> Values:
    """Two nodes with VLAN and tunnelled networks."""
    wanted = Wanted(
        ("default",), ("100:199",), tunnel=True, local_ips=LOCAL_IPS, controller="10.0.0.9", mechanism=mechanism
    )
    return resolve(wanted, of_topology(parse(TWO_NODES)))


def files(format: Format, role: Role | None = None) -> dict[tuple[str, str], str]:
    """The texts by node and file name."""
    return {(one.node, one.path): one.text for one in generate(both(), format, role)}


def test_plain_files_say_what_each_service_needs() -> None:
    made = files(Format.PLAIN)
    assert "enabled_filters = ComputeFilter," in made["controller", "etc/nova/nova.conf"]
    assert made["controller", "etc/nova/nova.conf"].endswith(",PciPassthroughFilter\n")
    ml2 = made["controller", "etc/neutron/plugins/ml2/ml2_conf.ini"]
    for line in (
        "type_drivers = flat,vlan,vxlan",
        "tenant_network_types = vlan,vxlan",
        "mechanism_drivers = openvswitch",
        "network_vlan_ranges = default:100:199",
        "vni_ranges = 1:1000",
    ):
        assert line in ml2.splitlines()
    agent = made["hv1", "etc/neutron/plugins/ml2/openvswitch_agent.ini"].splitlines()
    assert "bridge_mappings = default:br-enp3s0f0" in agent
    assert "local_ip = 10.1.0.1" in agent
    assert "tunnel_types = vxlan" in agent
    specs = [line for line in made["hv2", "etc/nova/nova.conf"].splitlines() if line.startswith("device_spec")]
    assert [json.loads(line.partition("=")[2])["physical_network"] for line in specs] == ["default", None]
    assert '"create_port:binding:profile"' in made["controller", "etc/neutron/policy.yaml"]


def test_a_role_has_its_files_alone() -> None:
    assert {node for node, _ in files(Format.PLAIN, Role.COMPUTE)} == {"hv1", "hv2"}
    assert {node for node, _ in files(Format.PLAIN, Role.CONTROLLER)} == {"controller"}


def test_devstack_asks_for_open_vswitch_and_quotes_for_its_shell() -> None:
    made = files(Format.DEVSTACK)
    compute = made["hv1", "opt/stack/devstack/local.conf"].splitlines()
    assert {"Q_AGENT=openvswitch", "SERVICE_HOST=10.0.0.9", "TUNNEL_ENDPOINT_IP=10.1.0.1"} <= set(compute)
    assert "[[post-config|$NOVA_CPU_CONF]]" in compute
    (first, second) = (line.partition("=")[2].strip() for line in compute if line.startswith("device_spec"))
    (word,) = shlex.split(f'"{first}"')  # as devstack's eval has it
    assert json.loads(word)["physical_network"] == "default"
    assert json.loads(shlex.split(f'"{second}"')[0])["physical_network"] is None
    controller = made["controller", "opt/stack/devstack/local.conf"].splitlines()
    assert "enabled_filters = $NOVA_FILTERS,PciPassthroughFilter" in controller
    assert "OVS_BRIDGE_MAPPINGS=public:br-ex,default:br-enp3s0f0" in controller
    assert not any(line.startswith("enable_plugin") for line in controller)


def test_a_double_quote_leaves_the_shells_own() -> None:
    assert shell('{"a":"b"}') == """{"'"a"'":"'"b"'"}"""


def test_devstack_wants_a_tenant_network_and_the_controllers_address() -> None:
    nodes = of_topology(parse(TWO_NODES))
    with pytest.raises(UsageError, match="say --vlan-range FIRST:LAST, or --tunnel"):
        generate(resolve(Wanted(controller="c"), nodes), Format.DEVSTACK, None)
    with pytest.raises(UsageError, match="say --controller ADDRESS"):
        generate(resolve(Wanted(vlan_ranges=("1:9",)), nodes), Format.DEVSTACK, None)


def test_deployment_tools_get_their_own_names() -> None:
    tripleo = files(Format.TRIPLEO)["hv1", "home/stack/ovs-hw-offload-hv1.yaml"]
    assert "    OvsHwOffload: true" in tripleo
    assert "        physical_network: null" in tripleo
    kolla = files(Format.KOLLA)
    assert 'openvswitch_hw_offload: "yes"' in kolla["controller", "etc/kolla/globals.d/ovs-hw-offload.yml"]
    assert "create_port:binding:profile" in kolla["controller", "etc/kolla/config/neutron/policy.yaml"]
    assert "device_spec = " in kolla["hv1", "etc/kolla/config/nova/hv1/nova.conf"]
    osa = files(Format.OSA)
    assert "neutron_plugin_type: ml2.ovs" in osa["controller", "etc/openstack_deploy/user_variables_ovs_hw_offload.yml"]
    variables = osa["controller", "etc/openstack_deploy/user_variables_ovs_hw_offload.yml"]
    assert 'neutron_policy_overrides:\n  "create_port:binding:profile": ' in variables
    assert "nova_device_spec:\n  - '{" in osa["controller", "etc/openstack_deploy/host_vars/hv2.yml"]


AGENT = "etc/neutron/plugins/ml2/openvswitch_agent.ini"


@pytest.mark.parametrize(
    ("format", "node", "path", "line"),
    [
        (Format.PLAIN, "hv1", AGENT, "firewall_driver = openvswitch"),
        (Format.DEVSTACK, "hv1", "opt/stack/devstack/local.conf", "firewall_driver = openvswitch"),
        (Format.KOLLA, "controller", "etc/kolla/config/neutron/openvswitch_agent.ini", "firewall_driver = openvswitch"),
        (
            Format.OSA,
            "controller",
            "etc/openstack_deploy/user_variables_ovs_hw_offload.yml",
            "    firewall_driver: openvswitch",
        ),
        (
            Format.TRIPLEO,
            "controller",
            "home/stack/ovs-hw-offload-controller.yaml",
            "  NeutronOVSFirewallDriver: openvswitch",
        ),
    ],
)
def test_every_tool_is_told_the_firewall_that_direct_ports_meet(
    format: Format, node: str, path: str, line: str
) -> None:
    assert line in files(format)[node, path].splitlines()


@pytest.mark.parametrize(
    ("format", "lines"),
    [
        (Format.PLAIN, ("mechanism_drivers = ovn", "service_plugins = ovn-router", "type_drivers = flat,vlan,geneve")),
        (Format.DEVSTACK, ("Q_AGENT=ovn", "Q_ML2_PLUGIN_TYPE_DRIVERS=flat,vlan,geneve")),
        (Format.KOLLA, ("neutron_plugin_agent: ovn", 'neutron_ovn_distributed_fip: "yes"')),
        (Format.OSA, ("neutron_plugin_type: ml2.ovn", "        - neutron_ovn_controller")),
        (Format.TRIPLEO, ("  NeutronMechanismDrivers: ovn", "  NeutronEnableDVR: true")),
    ],
)
def test_every_tool_is_told_of_ovn(format: Format, lines: tuple[str, ...]) -> None:
    made = "\n".join(one.text for one in generate(both(Mechanism.OVN), format, None)).splitlines()
    assert set(lines) <= set(made)
    assert not any("firewall_driver" in line.lower() for line in made)
    if format is not Format.TRIPLEO:
        assert any(line.strip().startswith("ovn_emit_need_to_frag") for line in made)


def test_a_chassis_is_told_where_ovns_databases_are() -> None:
    made = {(one.node, one.path): one.text for one in generate(both(Mechanism.OVN), Format.PLAIN, None)}
    assert ("hv1", AGENT) not in made
    command = made["hv1", "etc/nova/nova.conf"]
    for word in ("ovn-remote=tcp:10.0.0.9:6642", "ovn-encap-ip=10.1.0.1", "ovn-bridge-mappings=default:br-enp3s0f0"):
        assert f"external_ids:{word}" in command
    assert "ovn_sb_connection = tcp:10.0.0.9:6642" in made["hv1", "etc/neutron/neutron_ovn_metadata_agent.ini"]
    wanted = Wanted(vlan_ranges=("1:9",), mechanism=Mechanism.OVN)
    with pytest.raises(UsageError, match="OVN's databases are at the controller: say --controller ADDRESS"):
        generate(resolve(wanted, of_topology(parse(TWO_NODES))), Format.PLAIN, None)


def test_an_ini_file_leaves_out_empty_sections() -> None:
    assert ini(["about"], [("a", (("b", "1"), ("c", ""))), ("d", ())]) == "# about\n\n[a]\nb = 1\nc =\n"


def test_a_file_that_says_something_else_is_not_written_over(tmp_path: Path) -> None:
    wanted = [File("hv1", "etc/a", "1\n"), File("hv1", "etc/b", "2\n")]
    assert write(wanted, tmp_path) == [tmp_path / "hv1/etc/a", tmp_path / "hv1/etc/b"]
    assert write(wanted, tmp_path)  # the same again
    (tmp_path / "hv1/etc/b").write_text("mine\n")
    (tmp_path / "hv1/etc/a").unlink()
    with pytest.raises(Asap2Error, match=r"etc/b is there and says something else; nothing was written"):
        write(wanted, tmp_path)
    assert not (tmp_path / "hv1/etc/a").exists()
    write(wanted, tmp_path, force=True)
    assert (tmp_path / "hv1/etc/b").read_text() == "2\n"


def test_the_command_prints_one_file_as_it_is_and_several_with_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topology = tmp_path / "lab.toml"
    topology.write_text(TWO_NODES)
    words = ["openstack", "config", "--topology", str(topology), "--vlan-range", "1:9"]
    assert main([*words, "--format", "kolla", "--role", "compute", "--node", "hv1"]) == 0
    assert capsys.readouterr().out.startswith("# Merged by Kolla-Ansible")
    assert main(words) == 0
    assert "=== hv2: /etc/nova/nova.conf\n" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["values"]["computes"][1]["device_specs"][0]["product_id"] == "101e"
    assert main([*words, "--node", "hv3"]) == 2
    assert "has no node hv3; it has hv1, hv2" in capsys.readouterr().err


def test_who_is_not_root_is_told_what_to_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert main(["openstack", "config"]) == 1
    said = capsys.readouterr().err
    assert said == "asap2: this needs root; say `sudo asap2 openstack config …`, or give --from FILE\n"


def test_a_controller_needs_no_nic(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert main(["openstack", "config", "--role", "controller", "--vlan-range", "1:9"]) == 0
    said = capsys.readouterr().out
    assert "bridge_mappings = default:br-default" in said
    assert "=== controller: /etc/neutron/plugins/ml2/ml2_conf.ini\n" in said


def test_a_capture_is_a_host_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture.write(host(), tmp_path / "hv1.json")
    words = ["openstack", "config", "--from", str(tmp_path / "hv1.json"), "--format", "osa", "--role", "compute"]
    assert main([*words, "enp3s0f0"]) == 0
    assert '"address": "0000:03:00.0"' in capsys.readouterr().out
    assert main([*words, "eth0"]) == 2
    assert "eth0 is the representor of VF 0 of enp3s0f0" in capsys.readouterr().err
