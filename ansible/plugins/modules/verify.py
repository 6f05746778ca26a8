#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The module ``asap2.offload.verify``."""

from __future__ import annotations

DOCUMENTATION = r"""
module: verify
short_description: Prove with traffic that a VF's flows are offloaded
version_added: 0.1.0
description:
  - Runs C(asap2 host verify), which sends ICMP, UDP and TCP from where the VF's network device is, counts what of it
    the host had to touch, and reads the flows' counters.
  - Fails, with the reason, when not all of it was offloaded.
options:
  vf:
    description: The VF, by its representor, PCI address, network device, or guest's id.
    type: str
    required: true
  peer:
    description: An address, or another VF of this host, to send to.
    type: str
  listen:
    description: Send nothing, and watch for so many seconds what comes and goes.
    type: float
  netns:
    description: Where the VF's device is, a name of C(ip netns) or a process id; found by itself if not said.
    type: str
  peer_netns:
    description: Where the peer's device is, if it is a VF.
    type: str
  protocols:
    description: What to send.
    type: list
    elements: str
    choices: [icmp, udp, tcp]
    default: [icmp, udp, tcp]
  count:
    description: How many packets of each, both ways together.
    type: int
    default: 1000
  port:
    description: The port of UDP and TCP. The peer need not listen.
    type: int
    default: 7
  through:
    description: It counts only if all flows go through one.
    type: str
    choices: [vlan, tunnel]
  gate:
    description: Whether the task fails when not all was offloaded; if not, it is only told.
    type: bool
    default: true
attributes:
  check_mode:
    description: Is skipped, because it sends packets.
    support: none
  diff_mode:
    description: Changes nothing.
    support: none
extends_documentation_fragment:
  - asap2.offload.program
seealso:
  - module: asap2.offload.check
"""

EXAMPLES = r"""
- name: Traffic of VF 1 to another host is offloaded
  asap2.offload.verify:
    vf: enp3s0f0v1
    netns: vm1
    peer: 10.57.0.2
    through: vlan
"""

RETURN = r"""
offloaded:
  description: Whether all of it was.
  type: bool
  returned: always
representor:
  description: The VF's representor.
  type: str
  returned: always
results:
  description: What came of each protocol.
  type: list
  elements: dict
  returned: always
  contains:
    protocol:
      description: C(icmp), C(udp), C(tcp), or what was listened to.
      type: str
    offloaded:
      description: Whether it was.
      type: bool
    verdict:
      description: In a few words.
      type: str
      sample: "offloaded: 2 of 1000 packets reached the host"
    total:
      description: Packets that went and came.
      type: int
    by_host:
      description: Those of them that reached the host.
      type: int
    flows:
      description: The flows that carried it, with counters, VLANs and tunnels, and the reason of those in software.
      type: list
      elements: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.asap2.offload.plugins.module_utils.host import ARGUMENTS, Host


def words(asked: dict[str, Any]) -> list[str]:
    """The arguments of ``asap2 host verify``."""
    options = {
        "--netns": asked["netns"],
        "--peer-netns": asked["peer_netns"],
        "--protocol": ",".join(asked["protocols"]),
        "--count": asked["count"],
        "--port": asked["port"],
        "--through": asked["through"],
        "--listen": asked["listen"],
    }
    given = [f"{name}={value}" for name, value in options.items() if value is not None]
    return [*given, asked["vf"], *([asked["peer"]] if asked["peer"] else [])]


def told(result: dict[str, Any]) -> str:
    """What was not offloaded, with the reasons of its flows."""
    reasons = dict.fromkeys(f"{one['reason']}: {one['found']}" for one in result["flows"] if one["reason"])
    why = f" ({'; '.join(reasons)})" if reasons else ""
    return f"{result['protocol']}: {result['verdict']}{why}"


def main() -> None:
    """Verify on this host."""
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "vf": {"type": "str", "required": True},
            "peer": {"type": "str"},
            "listen": {"type": "float"},
            "netns": {"type": "str"},
            "peer_netns": {"type": "str"},
            "protocols": {
                "type": "list",
                "elements": "str",
                "choices": ["icmp", "udp", "tcp"],
                "default": ["icmp", "udp", "tcp"],
            },
            "count": {"type": "int", "default": 1000},
            "port": {"type": "int", "default": 7},
            "through": {"type": "str", "choices": ["vlan", "tunnel"]},
            "gate": {"type": "bool", "default": True},
        },
        mutually_exclusive=[("peer", "listen")],
        required_one_of=[("peer", "listen")],
        supports_check_mode=False,
    )
    _, data = Host(module).data("verify", *words(module.params))
    result = {
        "changed": False,
        "offloaded": data["offloaded"],
        "representor": data["representor"],
        "results": data["results"],
    }
    if not data["offloaded"] and module.params["gate"]:
        through = module.params["through"]
        bad = [told(one) for one in data["results"] if not one["offloaded"]]
        why = "; ".join(bad) or f"its flows do not go through a {through}"
        module.fail_json(msg=f"VF {data['vf']} at {data['representor']} is not offloaded: {why}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
