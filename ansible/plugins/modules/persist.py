#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The module ``asap2.offload.persist``."""

from __future__ import annotations

DOCUMENTATION = r"""
module: persist
short_description: Have a host's NICs set up at each boot as they are now
version_added: 0.1.0
description:
  - Runs C(asap2 host persist), which writes a systemd unit that sets the NICs up before Open vSwitch starts, and udev
    rules for the representors.
  - Open vSwitch remembers its options, bridges and ports by itself.
options:
  state:
    description: Whether it is to be so; V(absent) takes the files away, and what is set up stays until a boot.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Writes nothing (C(--dry-run)).
    support: full
  diff_mode:
    description: Shows the files as they are, and as they are to be.
    support: full
extends_documentation_fragment:
  - asap2.offload.program
seealso:
  - module: asap2.offload.setup
  - module: asap2.offload.undo
"""

EXAMPLES = r"""
- name: The same after each boot
  asap2.offload.persist:
"""

RETURN = r"""
files:
  description: The files that were written or removed, or would be.
  type: list
  elements: dict
  returned: success
  contains:
    path:
      description: Where it is.
      type: str
    before:
      description: Its contents as they were; null if it was not there.
      type: str
    after:
      description: Its contents as they are to be; null if it is to go.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asap2.offload.plugins.module_utils.host import ARGUMENTS, Host


def main() -> None:
    """Have this host's NICs set up at each boot, or not."""
    states = {"type": "str", "choices": ["present", "absent"], "default": "present"}
    module = AnsibleModule(argument_spec={**ARGUMENTS, "state": states}, supports_check_mode=True)
    flags = {"--remove": module.params["state"] == "absent", "--dry-run": module.check_mode}
    _, data = Host(module).data("persist", *[flag for flag, given in flags.items() if given])
    diff = [
        {
            "before_header": one["path"],
            "after_header": one["path"],
            "before": one["before"] or "",
            "after": one["after"] or "",
        }
        for one in data["files"]
    ]
    module.exit_json(changed=bool(data["files"]), files=data["files"], diff=diff)


if __name__ == "__main__":
    main()
