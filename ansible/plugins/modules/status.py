#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The module ``asap2.offload.status``."""

from __future__ import annotations

DOCUMENTATION = r"""
module: status
short_description: What a host's switchdev NICs are like
version_added: 0.1.0
description:
  - Runs C(asap2 host status), which tells of NICs, VFs, guests and representors, and where Open vSwitch's flows are.
options:
  pfs:
    description: Network devices or PCI addresses of the PFs to tell of; all if not said.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Changes nothing.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
extends_documentation_fragment:
  - asap2.offload.program
"""

EXAMPLES = r"""
- name: NICs and VFs
  asap2.offload.status:
  register: host

- name: Representors, by VF
  ansible.builtin.debug:
    msg: "{{ host.status.nics[0].vfs | map(attribute='representor') | list }}"
"""

RETURN = r"""
status:
  description: The page that C(asap2 host status --json) prints.
  type: dict
  returned: always
  contains:
    running:
      description: Whether Open vSwitch runs.
      type: bool
    hw_offload:
      description: Whether its database asks for offload.
      type: bool
    in_force:
      description: Whether it offloads.
      type: bool
    flows:
      description: Where its flows are.
      type: dict
    nics:
      description: The PFs, each with its mode, its counters and its VFs.
      type: list
      elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asap2.offload.plugins.module_utils.host import ARGUMENTS, Host


def main() -> None:
    """Tell of this host."""
    module = AnsibleModule(
        argument_spec={**ARGUMENTS, "pfs": {"type": "list", "elements": "str", "default": []}},
        supports_check_mode=True,
    )
    _, data = Host(module).data("status", *module.params["pfs"])
    module.exit_json(changed=False, status=data)


if __name__ == "__main__":
    main()
