# SPDX-License-Identifier: Apache-2.0
"""`asap2 openstack config`: nova and neutron themselves read what it makes, and `--check` tells what they do not."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from asap2.host.check.finding import Finding, Verdict
from asap2.host.inventory import Bridge
from asap2.lab.topology import parse
from asap2.openstack import settings as cloud_settings
from asap2.openstack.config.check.reading import read
from asap2.openstack.config.check.run import check, devices
from asap2.openstack.config.files import write
from asap2.openstack.config.generate import Format, generate
from asap2.openstack.config.nodes import of_host
from asap2.openstack.config.values import Wanted, resolve
from asap2.openstack.mechanism import Mechanism
from asap2.openstack.plan import computes
from asap2.testing import Result
from tests.system.offload.labs import Bench
from tests.unit.host.hosts import PF, port, with_netdev, with_pf, with_switch
from tests.unit.openstack.test_config_values import host

REPOSITORY = Path(__file__).resolve().parents[3]
PYTHON = REPOSITORY / ".venv-openstack/bin/python"
SERVICES = Path(__file__).with_name("services.py")
VFS = [f"0000:03:00.{number}" for number in range(2, 6)]
HOST = with_netdev(host(), PF, addresses=("10.1.0.1/24",))
VLAN = Wanted(vlan_ranges=("100:199",), controller="10.0.0.9")
VXLAN = Wanted(tunnel=True, local_ips=(("controller", "10.1.0.1"),), controller="10.0.0.9")
BOTH = Wanted(("default",), ("100:199",), tunnel=True, local_ips=(("controller", "10.1.0.1"),), controller="10.0.0.9")


@pytest.fixture(autouse=True, scope="session")
def _installed() -> None:
    if not PYTHON.exists():
        pytest.fail("OpenStack's packages are not installed: `make test-openstack` does that first")


def made(wanted: Wanted, directory: Path, format: Format = Format.PLAIN, mtu: int = 1500) -> Path:
    """The files of *format* for a host, and its controller, below *directory*."""
    one = with_netdev(HOST, PF, mtu=mtu)
    write(generate(resolve(wanted, (of_host(one, one.pfs),)), format, None), directory)
    return directory


def asked(service: str, *files: Path) -> Any:
    """What a service makes of *files*."""
    question = {"service": service, "files": [str(file) for file in files], "devices": devices(HOST.pfs)}
    command = [str(PYTHON), str(SERVICES)]
    done = subprocess.run(command, input=json.dumps(question), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def findings(*files: Path, where: Any = HOST) -> list[Finding]:
    """What ``--check`` finds."""
    pfs = where.pfs if where else ()
    _, found = check([str(file) for file in files], where, pfs, here=False, python=str(PYTHON))
    return found


def wrong(found: list[Finding]) -> list[tuple[int, str]]:
    """Lines and sentences of what is not right."""
    return [
        (int((one.subject or ":0").rpartition(":")[2]), one.found)
        for one in found
        if one.verdict in (Verdict.FAIL, Verdict.WARN)
    ]


# ---- what is made


@pytest.mark.parametrize(
    ("wanted", "default", "tunnels"), [(VLAN, VFS, []), (VXLAN, [], VFS), (BOTH, VFS[:2], VFS[2:])]
)
def test_nova_gives_each_networks_ports_its_vfs_and_never_the_pf(
    wanted: Wanted, default: list[str], tunnels: list[str], tmp_path: Path
) -> None:
    root = made(wanted, tmp_path)
    found = asked("nova", root / "hv1/etc/nova/nova.conf")
    assert (found["default"], found["tunnels"]) == (default, tunnels)


def test_novas_scheduler_finds_all_filters_the_pci_filter_too(tmp_path: Path) -> None:
    found = asked("nova", made(BOTH, tmp_path) / "controller/etc/nova/nova.conf")
    assert found["filters"][-1] == "PciPassthroughFilter"
    assert found["missing"] == []


def test_the_filters_are_novas_default_and_one(tmp_path: Path) -> None:
    empty = tmp_path / "nova.conf"
    empty.write_text("[DEFAULT]\n")
    ours = asked("nova", made(BOTH, tmp_path) / "controller/etc/nova/nova.conf")["filters"]
    assert ours[:-1] == asked("nova", empty)["filters"]


def test_neutron_reads_the_values_that_were_meant(tmp_path: Path) -> None:
    root = made(BOTH, tmp_path, mtu=9000)
    server = root / "controller/etc/neutron"
    agent = root / "hv1/etc/neutron/plugins/ml2/openvswitch_agent.ini"
    assert asked("neutron", server / "neutron.conf", server / "plugins/ml2/ml2_conf.ini", agent) == {
        "core_plugin": "ml2",
        "mtu": 9000,
        "drivers": ["openvswitch"],
        "types": ["flat", "vlan", "vxlan"],
        "tenants": ["vlan", "vxlan"],
        "ranges": {"default": [[100, 199]]},
        "flat": ["default"],
        "vni": ["1:1000"],
        "mappings": {"default": "br-phys"},
        "local_ip": "10.1.0.1",
        "tunnels": ["vxlan"],
    }


def test_neutrons_policy_is_one_that_oslo_policy_reads(tmp_path: Path) -> None:
    policy = made(VLAN, tmp_path) / "controller/etc/neutron/policy.yaml"
    look = (
        "import sys; from oslo_policy import policy; from neutron.conf import policies; "
        "known = {rule.name for rule in policies.list_rules()}; "
        "rules = policy.Rules.load(open(sys.argv[1]).read()); "
        "assert rules and not rules.keys() - known, rules.keys() - known; "
        "assert all(isinstance(rule, policy._checks.OrCheck) for rule in rules.values())"
    )
    done = subprocess.run([PYTHON, "-c", look, policy], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("wanted", [VLAN, VXLAN, BOTH])
@pytest.mark.parametrize("node", ["controller", "hv1"])
def test_the_check_has_nothing_to_say_of_what_was_made(wanted: Wanted, node: str, tmp_path: Path) -> None:
    root = made(wanted, tmp_path, mtu=9000)
    found = findings(root / node)
    assert wrong(found) == []
    assert any(one.verdict is Verdict.OK for one in found)


@pytest.mark.parametrize("wanted", [VLAN, VXLAN, BOTH])
@pytest.mark.parametrize("node", ["controller", "hv1"])
def test_the_check_has_nothing_to_say_of_devstacks_files(wanted: Wanted, node: str, tmp_path: Path) -> None:
    root = made(wanted, tmp_path, Format.DEVSTACK)
    found = findings(root / node / "opt/stack/devstack/local.conf")
    assert wrong(found) == []


def test_kollas_files_are_right_too(tmp_path: Path) -> None:
    root = made(BOTH, tmp_path, Format.KOLLA)
    assert wrong(findings(*root.rglob("*.conf"))) == []


@pytest.mark.parametrize("format", [Format.TRIPLEO, Format.KOLLA, Format.OSA])
def test_the_deployment_tools_yaml_is_yaml_with_the_same_device_spec(format: Format, tmp_path: Path) -> None:
    root = made(BOTH, tmp_path, format)
    files = sorted([*root.rglob("*.yaml"), *root.rglob("*.yml")])
    look = "import json, sys, yaml; print(json.dumps([yaml.safe_load(open(one)) for one in sys.argv[1:]]))"
    done = subprocess.run([PYTHON, "-c", look, *files], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = {file.name: data for file, data in zip(files, json.loads(done.stdout), strict=True)}
    specs = list(resolve(BOTH, (of_host(HOST, HOST.pfs),)).computes[0].device_specs)
    if format is Format.TRIPLEO:
        parameters = found["ovs-hw-offload-hv1.yaml"]["parameter_defaults"]["ComputeOvsHwOffloadParameters"]
        assert parameters["NovaPCIPassthrough"] == specs
        assert parameters["OvsHwOffload"] is True
    elif format is Format.OSA:
        assert [json.loads(one) for one in found["hv1.yml"]["nova_device_spec"]] == specs
        networks = found["provider_networks_ovs_hw_offload.yml"]["provider_networks"]
        assert [one["network"]["type"] for one in networks] == ["vlan", "vxlan"]
    else:
        assert found["ovs-hw-offload.yml"]["neutron_physical_networks"] == "default"


# ---- what is checked


def lines(path: Path, text: str) -> Path:
    """A file with *text*."""
    path.write_text(text)
    return path


LINES = (
    ("device_spek = {}", "[pci] has no device_spek"),
    ("enabled_filters = a", "[pci] has no enabled_filters; enabled_filters is of [filter_scheduler]"),
    ("report_in_placement = perhaps", "[pci] report_in_placement = perhaps: Unexpected boolean value 'perhaps'"),
    ('device_spec = {"address":"0000:03:00.2","physnet":"default"}', "device_spec has no key physnet"),
    ('device_spec = {"address":"*:03:00.2","capabilities":["switchdev"]}', "device_spec has no key capabilities"),
    ('device_spec = {"devname":"ens9","physical_network":"p"}', "matches no device of hv1"),
    ('device_spec = {"address":"0000:03:00.0","devname":"x"}', "can specify devname or address, but not both"),
    ('device_spec = {"address":"0000:1FFFF:00.2"}', "greater than the maximum allowable value"),
    ("device_spec = {'address': '*:03:00.2'}", "Invalid entry"),
    ('passthrough_whitelist = {"address":"*:03:00.2","physical_network":"p"}', "is an old name of"),
    ('device_spec = {"devname":"enp3s0f0","physical_network":"p"}', "it matches the PF enp3s0f0, too"),
    ('device_spec = {"vendor_id":"15b3","product_id":"1018"}', "there is no physical_network"),
    ('passthrough-whitelist = {"address":"*:03:00.2"}', "[pci] has no passthrough-whitelist"),
    ('device_spec = {"address":5}', "nova refuses"),
    ('device_spec = {"address":{"bus":3}}', "nova refuses"),
    ('device_spec = {"devname":["a"],"physical_network":"p"}', "matches no device of hv1"),
)
"""Lines of [pci], and what is to be said of each."""


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str]]:
    """What is said of a file with all of :data:`LINES`, from its line 5 on."""
    text = "\n".join(["[DEFAULT]", "# nova's", "my_ip = 10.0.0.1", "[pci]", *(line for line, _ in LINES), ""])
    return wrong(findings(lines(tmp_path_factory.mktemp("nova") / "nova.conf", text)))


@pytest.mark.parametrize("number", range(len(LINES)), ids=[line for line, _ in LINES])
def test_nova_conf_is_judged_by_line(number: int, judged: list[tuple[int, str]]) -> None:
    assert [line for line, found in judged if LINES[number][1] in found and line == 5 + number] == [5 + number]


def test_a_line_that_oslo_config_cannot_read_is_named(tmp_path: Path) -> None:
    found = findings(lines(tmp_path / "nova.conf", "[pci]\n\ndevice_spec\n"))
    assert (3, "No ':' or '=' found in assignment") in wrong(found)


def test_a_setting_before_the_first_section_is_none(tmp_path: Path) -> None:
    found = findings(lines(tmp_path / "nova.conf", "\ndevice_spec = {}\n[pci]\n"))
    assert (2, "Section must be started before assignment") in wrong(found)


@pytest.mark.parametrize(
    "spec",
    [
        '{"address":"0000:03:00.0","product_id":"1018","physical_network":"default","managed":"no"}',
        '[{"address":"*:03:00.2","physical_network":"default"},\n  {"address":"*:03:00.3","physical_network":null}]',
        '{"devname":"enp3s0f0v1","physical_network":"default","trusted":"true","live_migratable":"yes"}',
        '{"address":{"bus":"03","function":"[2-3]"},"physical_network":"default","resource_class":"A","traits":"B"}',
    ],
)
def test_what_nova_takes_is_taken(spec: str, tmp_path: Path) -> None:
    found = findings(lines(tmp_path / "nova.conf", f"[pci]\ndevice_spec = {spec}\n"))
    assert wrong(found) == []
    assert any(one.verdict is Verdict.OK and one.id == "device_spec" for one in found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[ovs]\nbridge_mapping = default:br-phys\n", (2, "[ovs] has no bridge_mapping")),
        ("[OVS]\nlocal_ip = ten\n", (2, "[OVS] local_ip = ten: ten is not IPv4 or IPv6 address")),
        (
            "[securitygroups]\nfirewall_driver = a\n",
            (2, "neutron has no section [securitygroups], for firewall_driver"),
        ),
        ("[agent]\ntunnel_types = vxlan\n", (2, "tunnel_types is vxlan, and there is no [ovs] local_ip")),
        ("[ovs]\ndatapath_type = kernel\n", (2, "[ovs] datapath_type = kernel: Valid values are [system, netdev]")),
        ("[ovs]\ndatapath_type = netdev\n", (2, "datapath_type is netdev")),
    ],
)
def test_neutrons_files_are_judged_by_line(text: str, said: tuple[int, str], tmp_path: Path) -> None:
    found = wrong(findings(lines(tmp_path / "openvswitch_agent.ini", text)))
    assert any(number == said[0] and sentence.startswith(said[1]) for number, sentence in found), found


def test_files_of_a_real_cloud_have_no_unknown_settings(tmp_path: Path) -> None:
    nova = """\
[DEFAULT]
transport_url = rabbit://guest:guest@127.0.0.1:15672/
compute_driver = libvirt.LibvirtDriver
state_path = /var/lib/nova
lock_path = $state_path/tmp
[api_database]
connection = mysql+pymysql://nova:x@controller/nova_api
[database]
connection = mysql+pymysql://nova:x@controller/nova
[keystone_authtoken]
www_authenticate_uri = http://controller:5000/
auth_url = http://controller:5000/
memcached_servers = controller:11211
auth_type = password
project_domain_name = Default
username = nova
password = x
[service_user]
send_service_user_token = true
auth_type = password
auth_url = https://controller/identity
username = nova
[placement]
auth_type = admin_token
endpoint = http://controller:8778
token = admin
[neutron]
auth_type = none
endpoint_override = http://controller:9696
[vnc]
server_proxyclient_address = $my_ip
[os_vif_ovs]
ovsdb_connection = tcp:127.0.0.1:6640
[vif_plug_ovs_privileged]
helper_command = sudo privsep-helper
[oslo_policy]
policy_file = policy.yaml
[mdev_nvidia-35]
device_addresses = 0000:84:00.0
"""
    neutron = """\
[DEFAULT]
core_plugin = ml2
service_plugins = router
auth_strategy = keystone
notify_nova_on_port_status_changes = true
[nova]
auth_url = http://controller:5000
auth_type = password
region_name = RegionOne
username = nova
[oslo_concurrency]
lock_path = /var/lib/neutron/tmp
[privsep_ovs_vsctl]
helper_command = sudo privsep-helper
[ovs]
ovsdb_connection = tcp:127.0.0.1:6640
[agent]
root_helper = sudo
"""
    found = findings(lines(tmp_path / "nova.conf", nova), lines(tmp_path / "neutron.conf", neutron))
    assert [one for one in wrong(found) if "lock_path" not in one[1]] == []
    assert (5, "[DEFAULT] has no lock_path; lock_path is of [os_brick], [oslo_concurrency]") in wrong(found)


def test_the_pages_local_conf_is_told_what_is_old(tmp_path: Path) -> None:
    text = """\
[[local|localrc]]
PCI=03:00
enable_plugin os-vif https://example.org/openstack/os-vif
PHYSICAL_NETWORK=default
OVS_PHYSICAL_BRIDGE=br-phys
[[post-config|$NOVA_CONF]]
[pci]
passthrough_whitelist ={"'"address"'":"'"*:'"${PCI}"'.*"'","'"physical_network"'":"'"default"'"}
"""
    found = wrong(findings(lines(tmp_path / "local.conf", text)))
    assert found == [
        (3, "enable_plugin os-vif"),
        (1, "Q_AGENT is not set"),
        (8, "[pci] passthrough_whitelist is an old name of [pci] device_spec"),
        (8, "it matches the PF enp3s0f0, too"),
    ]
    plain = text.replace('"\'"', '"')
    refused = wrong(findings(lines(tmp_path / "local.conf", plain)))
    assert any(number == 8 and "nova refuses" in said for number, said in refused), refused


def test_what_is_made_for_ovn_is_right(tmp_path: Path) -> None:
    root = made(dataclasses.replace(BOTH, mechanism=Mechanism.OVN), tmp_path)
    found = wrong(findings(root / "controller", root / "hv1"))
    assert [said for _, said in found] == ["[ovn] ovn_emit_need_to_frag is to be removed"]


@pytest.mark.parametrize("mechanism", Mechanism)
def test_the_clouds_of_this_project_have_no_unknown_settings(mechanism: Mechanism, tmp_path: Path) -> None:
    topology = parse(resources.files("asap2.openstack").joinpath("topology.toml").read_text())
    made = cloud_settings.files(computes(topology), PYTHON.parents[1], mechanism)
    agents = ("openvswitch_agent.ini", "neutron_ovn_metadata_agent.ini")
    names = ("nova.conf", "neutron.conf", "ml2_conf.ini", *agents)
    for where in ("controller", "compute-node-1"):
        files = []
        for name in names:
            if f"etc/{where}/{name}" in made:
                (tmp_path / where).mkdir(exist_ok=True)
                files.append(lines(tmp_path / where / name, made[f"etc/{where}/{name}"]))
        assert [one for one in findings(*files, where=None) if one.verdict is Verdict.FAIL] == []


def test_two_networks_in_two_bridges_of_one_uplink_are_told(tmp_path: Path) -> None:
    text = "[ovs]\nbridge_mappings = default:br-phys,other:br-two\n"
    nova = '[pci]\ndevice_spec = {"address":"0000:03:00.2","physical_network":"other"}\n'
    where = with_switch(
        HOST, bridges=(*HOST.openvswitch.bridges, Bridge("br-two", ports=(port("br-two", "internal"),)))
    )
    found = wrong(
        findings(lines(tmp_path / "nova.conf", nova), lines(tmp_path / "openvswitch_agent.ini", text), where=where)
    )
    assert found == [(2, "br-two has no port enp3s0f0, which is in br-phys")]


def test_a_nic_in_legacy_mode_is_told(tmp_path: Path) -> None:
    root = made(VLAN, tmp_path)
    eswitch = HOST.pfs[0].eswitch
    assert eswitch is not None
    where = with_pf(HOST, eswitch=type(eswitch)("legacy"))
    found = wrong(findings(root / "hv1", where=where))
    assert [said for _, said in found] == ["enp3s0f0, whose VFs it matches, is in legacy mode"]


def test_services_are_told_apart_in_a_directory(tmp_path: Path) -> None:
    assert read([str(made(VLAN, tmp_path) / "hv1")]).services == ["nova", "neutron"]


# ---- on a node, with its own sysfs


@pytest.fixture(scope="module")
def lab() -> Iterator[Bench]:
    """A hypervisor whose NIC is set up."""
    topology = '[[node]]\nname = "hv1"\n[[node.nic]]\nvfs = 4\nmode = "switchdev"\n'
    with Bench.running(topology) as bench:
        yield bench


def test_on_a_node_settings_are_made_of_its_nics_and_checked_there(lab: Bench, tmp_path: Path) -> None:
    def asap2(*words: str) -> Result:
        command = f"{REPOSITORY}/.venv/bin/asap2 openstack config {' '.join(words)}"
        return lab.run("hv1", command, timeout=120)

    lab.ok("hv1", "ovs-vsctl add-br br-enp3s0f0 -- add-port br-enp3s0f0 enp3s0f0")
    done = asap2("--vlan-range", "100:199", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    checked = asap2("--check", str(tmp_path / "hv1"), "--python", str(PYTHON), "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    said = json.loads(checked.stdout)
    assert "VFs 0, 1, 2, 3 of enp3s0f0, for physical network default" in [one["found"] for one in said["findings"]]
    assert said["versions"].keys() == {"nova", "neutron"}

    path = lines(tmp_path / "nova.conf", '[pci]\ndevice_spec = {"devname":"enp3s0f0","physical_network":"default"}\n')
    by_name = asap2("--check", str(path), "--python", str(PYTHON))
    assert by_name.returncode == 0, by_name.stderr
    assert "VFs 0, 1, 2, 3 of enp3s0f0" in by_name.stdout
    assert "it matches the PF enp3s0f0, too" in by_name.stdout

    lines(path, '[pci]\ndevice_spec = {"devname":"enp9s0f0","physical_network":"default"}\n')
    missing = asap2("--check", str(path), "--python", str(PYTHON))
    assert missing.returncode == 1
    assert "there is no PF enp9s0f0 here; there is enp3s0f0" in missing.stdout
