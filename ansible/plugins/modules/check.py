#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The module ``asap2.offload.check``."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check
short_description: Check what Open vSwitch hardware offload needs on a host
version_added: 0.1.0
description:
  - Runs C(asap2 host check), which looks at kernel, programs, firmware, PCIe, SR-IOV, eSwitch, representors, TC and
    Open vSwitch.
  - Fails when the verdict is bad, with what stands in the way and how to mend it. So it can gate a rollout.
options:
  pfs:
    description: Network devices or PCI addresses of the PFs to look at; all if not said.
    type: list
    elements: str
    default: []
  strict:
    description: Whether warnings make the verdict bad, too.
    type: bool
    default: false
  trial:
    description:
      - Whether a rule is put into the NIC, for a MAC that nobody has, and taken out at once, to see that it takes it.
      - In check mode that is not done.
    type: bool
    default: true
  only:
    description: The findings that count for the verdict, by their ids; all if not said.
    type: list
    elements: str
    default: []
  accept:
    description: Findings that do not count for the verdict, by their ids.
    type: list
    elements: str
    default: []
  gate:
    description: Whether a bad verdict fails the task; if not, it is only told, with all findings.
    type: bool
    default: true
attributes:
  check_mode:
    description: Changes nothing.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
extends_documentation_fragment:
  - asap2.offload.program
seealso:
  - module: asap2.offload.setup
"""

EXAMPLES = r"""
- name: Stop where offload would not work
  asap2.offload.check:
    pfs: [enp3s0f0]

- name: What setting up cannot mend
  asap2.offload.check:
    only: [kernel, firmware, sriov, ovs.running]
"""

RETURN = r"""
verdict:
  description: C(ok) or C(fail), by what counts.
  type: str
  returned: always
  sample: fail
findings:
  description: All that was looked at, in the order in which a person would look.
  type: list
  elements: dict
  returned: success
  contains:
    id:
      description: Stable, as in the operator's guide.
      type: str
    verdict:
      description: C(ok), C(warn), C(fail) or C(unknown).
      type: str
    found:
      description: What was found.
      type: str
    why:
      description: Why it matters.
      type: str
    fix:
      description: A command, or what else to do; may be null.
      type: str
    subject:
      description: The device that it is about; may be null.
      type: str
bad:
  description: Those of C(findings) that make the verdict bad.
  type: list
  elements: dict
  returned: success
summary:
  description: The number of findings of each verdict.
  type: dict
  returned: success
  sample: {"ok": 22, "warn": 1, "fail": 0, "unknown": 2}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asap2.offload.plugins.module_utils.host import ARGUMENTS, Host


def counting(findings: list[dict[str, Any]], strict: bool, only: list[str], accept: list[str]) -> list[dict[str, Any]]:
    """Those of *findings* that make the verdict bad."""
    wrong = ("fail", "warn") if strict else ("fail",)
    return [
        one
        for one in findings
        if one["verdict"] in wrong and (not only or one["id"] in only) and one["id"] not in accept
    ]


def told(finding: dict[str, Any]) -> str:
    """A finding in a clause."""
    about = f"{finding['subject']}: " if finding["subject"] else ""
    fix = f" (fix: {finding['fix']})" if finding["fix"] else ""
    return f"{finding['id']}: {about}{finding['found']}{fix}"


def main() -> None:
    """Check this host."""
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "pfs": {"type": "list", "elements": "str", "default": []},
            "strict": {"type": "bool", "default": False},
            "trial": {"type": "bool", "default": True},
            "only": {"type": "list", "elements": "str", "default": []},
            "accept": {"type": "list", "elements": "str", "default": []},
            "gate": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    asked = module.params
    trial = ["--trial" if asked["trial"] and not module.check_mode else "--no-trial"]
    _, data = Host(module).data("check", *trial, *asked["pfs"])
    unknown = [one for one in (*asked["only"], *asked["accept"]) if one not in data["checks"]]
    if unknown:
        module.fail_json(msg=f"there is no finding {unknown[0]!r}; there are {', '.join(data['checks'])}")
    bad = counting(data["findings"], asked["strict"], asked["only"], asked["accept"])
    if bad and asked["gate"]:
        module.fail_json(msg=f"hardware offload is not ready here: {'; '.join(map(told, bad))}", verdict="fail")
    module.exit_json(
        changed=False,
        verdict="fail" if bad else "ok",
        findings=data["findings"],
        bad=bad,
        summary=data["summary"],
    )


if __name__ == "__main__":
    main()
