#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The module ``asap2.offload.setup``."""

from __future__ import annotations

DOCUMENTATION = r"""
module: setup
short_description: Bring a host's NICs and Open vSwitch to hardware offload
version_added: 0.1.0
description:
  - Runs C(asap2 host setup). It makes VFs, puts eSwitches into switchdev mode, turns on the offload feature, sets
    Open vSwitch's options, and puts uplinks and representors into bridges.
  - What is so already stays. Where a step fails, what was done before it is taken back.
  - Refuses, with nothing changed, what would take a VF from a guest or cut the link by which the host is reached.
options:
  nics:
    description: The PFs to set up. All are in switchdev mode before any VF is bound again, as a bond of two PFs needs.
    type: list
    elements: dict
    required: true
    suboptions:
      pf:
        description: Its network device or PCI address.
        type: str
        required: true
      vfs:
        description: How many VFs; if not said, as many as there are, or 4.
        type: int
      order:
        description: Whether VFs are made before the eSwitch's mode changes, or after; V(auto) is what the driver wants.
        type: str
        choices: [auto, vfs-first, switchdev-first]
        default: auto
      encap:
        description: Whether the eSwitch may encapsulate; left alone when not said.
        type: bool
      steering:
        description: Who writes the NIC's rules, driver (V(smfs)) or firmware (V(dmfs)); left alone when not said.
        type: str
        choices: [dmfs, smfs]
      bridge:
        description: The bridge of Open vSwitch for uplink and representors; made if missing.
        type: str
      uplink:
        description: Whether the uplink goes into the bridge.
        type: bool
        default: true
      representors:
        description:
          - Whether the representors go into the bridge, and are set up.
          - With OpenStack, nova and os-vif do that for each guest.
        type: bool
        default: false
      representor_names:
        description: Names that the representors get, by VF; left alone when not said.
        type: list
        elements: str
        default: []
      vf:
        description: What VFs get, as by C(ip link set PF vf N); what is not said is left alone.
        type: list
        elements: dict
        default: []
        suboptions:
          index:
            description: The VF's number.
            type: int
            required: true
          mac:
            description: Its MAC; it counts from the VF's next binding.
            type: str
          trust:
            description: Whether its guest is trusted; can be set before the PF is in switchdev mode only.
            type: bool
          spoofchk:
            description: Whether other source MACs are dropped; can be set before the PF is in switchdev mode only.
            type: bool
  openvswitch:
    description: Options of Open vSwitch.
    type: dict
    default: {}
    suboptions:
      tc_policy:
        description: Where its rules go; left alone when not said.
        type: str
        choices: [none, skip_sw, skip_hw]
      max_idle:
        description: After how many milliseconds a flow without packets goes; left alone when not said.
        type: int
      restart:
        description: Whether it may be restarted. If not, C(hw-offload) counts from its next start.
        type: bool
        default: true
  nic_only:
    description: Leave Open vSwitch alone; it need not run.
    type: bool
    default: false
  force:
    description: Even if it cuts the link by which the host is reached, or takes VFs that the host itself uses.
    type: bool
    default: false
attributes:
  check_mode:
    description: Plans, changes nothing (C(--dry-run)).
    support: full
  diff_mode:
    description: Shows each setting as it is, and as it is to be.
    support: full
extends_documentation_fragment:
  - asap2.offload.program
seealso:
  - module: asap2.offload.check
  - module: asap2.offload.undo
  - module: asap2.offload.verify
"""

EXAMPLES = r"""
- name: Four VFs in switchdev mode, all in a bridge
  asap2.offload.setup:
    nics:
      - pf: enp3s0f0
        vfs: 4
        bridge: br-int
        representors: true

- name: A bond's two PFs, for OpenStack
  asap2.offload.setup:
    nics:
      - {pf: "0000:03:00.0", vfs: 16, steering: smfs}
      - {pf: "0000:03:00.1", vfs: 16, steering: smfs}
    openvswitch:
      max_idle: 30000
"""

RETURN = r"""
steps:
  description: The steps that were done, or that are planned, each with the commands that a person would type.
  type: list
  elements: dict
  returned: success
  contains:
    title:
      description: The step in a few words.
      type: str
    commands:
      description: What a person would type.
      type: list
      elements: str
changes:
  description: Each setting that the steps change, as it was and as it is to be.
  type: list
  elements: dict
  returned: success
  contains:
    what:
      description: The setting.
      type: str
      sample: 0000:03:00.0 eSwitch mode
    before:
      description: As it was.
      type: str
      sample: legacy
    after:
      description: As it is to be.
      type: str
      sample: switchdev
seconds:
  description: How long it took on the host.
  type: float
  returned: success
"""

import os
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asap2.offload.plugins.module_utils.host import ARGUMENTS, Host, diff_of
from ansible_collections.asap2.offload.plugins.module_utils.toml import tables

VF = {
    "index": {"type": "int", "required": True},
    "mac": {"type": "str"},
    "trust": {"type": "bool"},
    "spoofchk": {"type": "bool"},
}
NIC = {
    "pf": {"type": "str", "required": True},
    "vfs": {"type": "int"},
    "order": {"type": "str", "choices": ["auto", "vfs-first", "switchdev-first"], "default": "auto"},
    "encap": {"type": "bool"},
    "steering": {"type": "str", "choices": ["dmfs", "smfs"]},
    "bridge": {"type": "str"},
    "uplink": {"type": "bool", "default": True},
    "representors": {"type": "bool", "default": False},
    "representor_names": {"type": "list", "elements": "str", "default": []},
    "vf": {"type": "list", "elements": "dict", "default": [], "options": VF},
}
SWITCH = {
    "tc_policy": {"type": "str", "choices": ["none", "skip_sw", "skip_hw"]},
    "max_idle": {"type": "int"},
    "restart": {"type": "bool", "default": True},
}


def configuration(asked: dict[str, Any]) -> str:
    """What is wanted, as a configuration of ``asap2 host setup``."""
    text: str = tables({"openvswitch": asked["openvswitch"], "nic": asked["nics"]})
    return text


def main() -> None:
    """Set this host up."""
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "nics": {"type": "list", "elements": "dict", "required": True, "options": NIC},
            "openvswitch": {"type": "dict", "default": {}, "options": SWITCH},
            "nic_only": {"type": "bool", "default": False},
            "force": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    if not module.params["nics"]:
        module.fail_json(msg="no NIC is named: say in nics which PFs are to be set up")
    flags = {"--dry-run": module.check_mode, "--nic-only": module.params["nic_only"], "--force": module.params["force"]}
    host = Host(module)
    descriptor, path = tempfile.mkstemp(suffix=".toml", dir=module.tmpdir)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(configuration(module.params))
        _, data = host.data("setup", "--config", path, *[flag for flag, given in flags.items() if given])
    finally:
        os.unlink(path)
    module.exit_json(
        changed=bool(data["steps"]),
        steps=data["steps"],
        changes=data["changes"],
        seconds=data["seconds"],
        diff=diff_of(data["changes"]),
    )


if __name__ == "__main__":
    main()
