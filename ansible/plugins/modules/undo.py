#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The module ``asap2.offload.undo``."""

from __future__ import annotations

DOCUMENTATION = r"""
module: undo
short_description: Bring a host back to what it was before hardware offload was set up
version_added: 0.1.0
description:
  - Runs C(asap2 host undo), which brings back what was before the first M(asap2.offload.setup), and removes what
    M(asap2.offload.persist) wrote.
  - Refuses, with nothing changed, while a guest has a VF that would go.
  - Does nothing where nothing was set up.
options:
  force:
    description: Even if the host itself uses VFs, or others have ports in a bridge that setting up made.
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
  - module: asap2.offload.setup
"""

EXAMPLES = r"""
- name: As it was before the first set-up
  asap2.offload.undo:
"""

RETURN = r"""
steps:
  description: The steps that were done, or that are planned, each with the commands that a person would type.
  type: list
  elements: dict
  returned: always
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
  returned: always
  contains:
    what:
      description: The setting.
      type: str
    before:
      description: As it was.
      type: str
    after:
      description: As it is to be.
      type: str
removed:
  description: The files of M(asap2.offload.persist) that were removed, or would be.
  type: list
  elements: str
  returned: always
left:
  description: What could not be brought back, each in a few words; if there is any, the task fails.
  type: list
  elements: str
  returned: always
seconds:
  description: How long it took on the host.
  type: float
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asap2.offload.plugins.module_utils.host import ARGUMENTS, Host, diff_of


def main() -> None:
    """Bring this host back."""
    module = AnsibleModule(
        argument_spec={**ARGUMENTS, "force": {"type": "bool", "default": False}}, supports_check_mode=True
    )
    flags = {"--dry-run": module.check_mode, "--force": module.params["force"]}
    _, data = Host(module).data("undo", *[flag for flag, given in flags.items() if given])
    files = [{"what": path, "before": "present", "after": "absent"} for path in data["removed"]]
    result = {
        "changed": bool(data["steps"] or data["removed"]),
        "steps": data["steps"],
        "changes": data["changes"],
        "removed": data["removed"],
        "left": data["left"],
        "seconds": data["seconds"],
        "diff": diff_of([*data["changes"], *files]),
    }
    if data["left"]:
        module.fail_json(msg=f"not everything is as it was before: {'; '.join(data['left'])}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
