# SPDX-License-Identifier: Apache-2.0
"""The reasons why a flow is not offloaded: stable codes, with what each means and what to do.

The first word of a code says who refuses: ``switch`` (Open vSwitch's settings), ``port``, ``match`` and ``action`` (its
TC layer), ``tc`` (the kernel), ``nic`` (the driver). docs/reasons.md is the table for people.
"""

from __future__ import annotations

from dataclasses import dataclass

PURGE = "ovs-appctl revalidator/purge"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code means, and what to do.

    ``fix`` may contain ``{port}`` (the flow's port, or the port or bridge that a refusal concerns), ``{bridge}`` and
    ``{service}`` of Open vSwitch, and ``{pf}`` and PCI ``{address}`` of a NIC.
    """

    why: str
    fix: str


OFFLOADED, TAKEN_NOW = "offloaded", "taken-now"
TC_UNEXPLAINED, NIC_UNEXPLAINED = "tc.unexplained", "nic.unexplained"
UNEXPLAINED = (TC_UNEXPLAINED, NIC_UNEXPLAINED)
"""Last resorts: they name the layer that keeps the flow, and no more."""
NEIGHBOURS = "nothing: Open vSwitch itself matches on their addresses, and there are few such packets"
"""What to do about ARP and neighbour discovery."""
DEEPER = "asap2 host explain --deep"

REASONS: dict[str, Meaning] = {
    OFFLOADED: Meaning("the NIC has it", "nothing"),
    TAKEN_NOW: Meaning(
        "the NIC takes the rule now: what prevented it when the flow was installed is gone, but Open vSwitch does not "
        "try again by itself",
        PURGE,
    ),
    # ---- Open vSwitch's settings
    "switch.off": Meaning(
        "hardware offload is not enabled in Open vSwitch",
        "asap2 host setup, or: ovs-vsctl set Open_vSwitch . other_config:hw-offload=true, then systemctl restart "
        "{service}",
    ),
    "switch.not-in-force": Meaning("hw-offload takes effect at the switch's next start", "systemctl restart {service}"),
    "switch.skip-hw": Meaning(
        "tc-policy=skip_hw keeps all flows in TC's software",
        "ovs-vsctl remove Open_vSwitch . other_config tc-policy, then systemctl restart {service}",
    ),
    "switch.userspace": Meaning(
        "a bridge of the userspace datapath does not offload through TC",
        "ovs-vsctl set bridge {bridge} datapath_type=system",
    ),
    # ---- ports
    "port.gone": Meaning(
        "a port that the flow names is no longer in the datapath", f"{PURGE}; an idle flow goes away by itself"
    ),
    "port.internal": Meaning(
        "the packets come from the host itself, through a bridge's own interface, not from the NIC",
        "nothing, if it is the host's own traffic; else give the host a VF or the uplink's address instead",
    ),
    "port.not-nic": Meaning(
        "the packets enter through a device that is not a port of a switchdev NIC",
        "give the guest a VF instead of this device",
    ),
    "port.other-namespace": Meaning(
        "a port that the flow names is in another network namespace, where Open vSwitch cannot install a rule",
        "nothing, for ports of DHCP and routers; give a guest a VF instead of this device",
    ),
    "port.legacy": Meaning("the NIC's eSwitch is in legacy mode", "asap2 host setup {pf}"),
    "port.feature-off": Meaning("hw-tc-offload is off on the port", f"ethtool -K {{port}} hw-tc-offload on && {PURGE}"),
    "port.no-qdisc": Meaning(
        "the port has no ingress qdisc for the rule: another program removed it",
        f"tc qdisc add dev {{port}} ingress && {PURGE}",
    ),
    "port.no-flow-api": Meaning(
        "Open vSwitch could not set the port up for offload when it was added",
        "look for the port in the log; then ovs-vsctl del-port {port}, and add it again",
    ),
    "port.tunnel-elsewhere": Meaning(
        "the tunnel's packets do not enter or leave through a switchdev NIC that may encapsulate",
        "route to the other end over the uplink, and put the tunnel's local address on the uplink",
    ),
    # ---- matches that Open vSwitch's TC layer does not have
    "match.vlan-mask": Meaning(
        "TC matches a VLAN id or priority in full or not at all, and cannot match the mere presence of a tag",
        "match on dl_vlan=N, not on vlan_tci with a mask",
    ),
    "match.skb-mark": Meaning("TC has no match on the packet mark", "remove pkt_mark from the OpenFlow rules"),
    "match.skb-priority": Meaning(
        "TC has no match on the packet's priority", "remove skb_priority from the OpenFlow rules"
    ),
    "match.dp-hash": Meaning(
        "TC has no match on the datapath's hash, which bonds (balance-tcp) and select groups use",
        "bond the NIC's ports in the kernel (802.3ad), or use a group with selection_method=hash on exact fields",
    ),
    "match.packet-type": Meaning(
        "packets without an Ethernet header are not offloaded", "use a tunnel with packet_type=legacy_l2"
    ),
    "match.no-ethertype": Meaning(
        "packets without an Ethernet type (802.2: spanning tree and the like) are not offloaded",
        "nothing: there are few such packets",
    ),
    "match.mpls-stack": Meaning("TC matches one MPLS label, not a stack", "match on the outermost label alone"),
    "match.ipv6-fragment": Meaning("fragments of IPv6 packets are not offloaded", "use a larger MTU or a smaller MSS"),
    "match.ct-state": Meaning(
        "TC cannot match this part of connection tracking (state, zone, mark or label) here",
        "use Linux 5.15 or newer with act_ct; do not match on +snat or +dnat",
    ),
    "match.ct-tuple": Meaning(
        "TC has no match on a connection's original addresses", "do not match on ct_nw_src and similar fields"
    ),
    "match.nd": Meaning(
        "TC has no match on the fields of neighbour discovery",
        "remove nd_target, nd_sll and nd_tll from the OpenFlow rules",
    ),
    "match.nsh": Meaning("TC has no match on NSH", "nothing: NSH is not offloaded"),
    "match.tunnel": Meaning(
        "it matches on a tunnel field that TC does not have", "do not match on OAM, GBP, ERSPAN or GTP-U"
    ),
    "match.incomplete": Meaning(
        "it matches on too little: this Open vSwitch requires the full Ethernet type and, for IP, the fragment type",
        "nothing: flows that Open vSwitch installs by itself match on both",
    ),
    "match.recirculation": Meaning(
        "it continues an earlier step, and TC does not have that step",
        "find out why the flow with that recirc() in its actions is not in TC: asap2 host explain --all",
    ),
    "match.other": Meaning("TC has no such match", "remove the field from the OpenFlow rules"),
    # ---- actions that it does not have
    "action.controller": Meaning(
        "the packets go to the OpenFlow controller", "do not send traffic that is to be offloaded to the controller"
    ),
    "action.slow-path": Meaning(
        "the switch itself handles these packets (LACP, BFD, CFM, STP, or an action that only it can do)",
        "nothing, for protocols: their packets are few; else find the action in the OpenFlow rules: ovs-appctl "
        "ofproto/trace",
    ),
    "action.sampling": Meaning("packets are sampled for sFlow or IPFIX", "ovs-vsctl clear bridge {bridge} sflow ipfix"),
    "action.userspace": Meaning("the packets go to a program", "ovs-appctl ofproto/trace shows the rule that does it"),
    "action.truncate": Meaning("TC has no truncation", "use mirrors without snaplen, and output without max_len"),
    "action.hash": Meaning(
        "TC cannot compute the datapath's hash, which bonds (balance-tcp) and select groups use",
        "bond the NIC's ports in the kernel (802.3ad)",
    ),
    "action.clone": Meaning(
        "TC cannot change a copy of a packet separately", "ovs-appctl ofproto/trace shows the rule that does it"
    ),
    "action.meter": Meaning(
        "the meter is not in TC: its first band is not a drop band, or the kernel has no policer for it",
        "use a meter with one drop band, Open vSwitch 3.0 or newer, and a kernel with act_police",
    ),
    "action.ct": Meaning(
        "this kernel's TC does not track connections", "use Linux 5.7 or newer with act_ct (CONFIG_NET_ACT_CT)"
    ),
    "action.ct-helper": Meaning(
        "Open vSwitch does not offload helpers (ct(alg=…))", "use no alg for traffic that is to be offloaded"
    ),
    "action.set-field": Meaning("TC cannot set this field", "remove it from the OpenFlow rules"),
    "action.set-fragment": Meaning(
        "in fragments, TC cannot rewrite what the checksum of TCP, UDP or ICMPv6 covers",
        "use a larger MTU or a smaller MSS, so that there are no fragments",
    ),
    "action.set-protocol": Meaning(
        "a rule that sets addresses, TTL or ports must match on TCP, UDP or ICMP, which determines the checksums",
        "match on tcp, udp or icmp in the OpenFlow rule that sets the field",
    ),
    "action.tunnel-option": Meaning("TC cannot set this tunnel field", "do not use GBP, ERSPAN or GTP-U options"),
    "action.too-many": Meaning(
        "Open vSwitch puts at most 16 actions into a TC rule", "use fewer outputs: avoid flooding and mirrors"
    ),
    "action.tunnel-mirror": Meaning(
        "a packet from a tunnel cannot be copied and then looked up again", "do not mirror on the tunnel's bridge"
    ),
    "action.ethernet": Meaning(
        "TC is not used to push or pop Ethernet headers", "use a tunnel with packet_type=legacy_l2"
    ),
    "action.nsh": Meaning("TC does not have NSH", "nothing: NSH is not offloaded"),
    "action.check-length": Meaning(
        "check_pkt_len is offloaded only since Open vSwitch 3.0", "use a newer Open vSwitch"
    ),
    "action.recirculate": Meaning(
        "it is one of several steps, and this kernel cannot continue in software where TC stopped: TC and the datapath "
        "do not share recirculation ids",
        "use a kernel with CONFIG_NET_TC_SKB_EXT (Linux 5.5 or newer)",
    ),
    "action.flow-api": Meaning(
        "it sends to a port that Open vSwitch has not set up for offload", "look for that port in the log; add it again"
    ),
    "action.other": Meaning("TC has no such action", "ovs-appctl ofproto/trace shows the rule that asks for it"),
    # ---- the kernel
    "tc.no-priority": Meaning(
        "there is no TC priority left for another mask", "use fewer different masks in the OpenFlow rules"
    ),
    "tc.refused": Meaning("the kernel's TC refuses the rule", "read its message"),
    TC_UNEXPLAINED: Meaning(
        "Open vSwitch's TC layer or the kernel's TC did not take the flow, and nothing that was examined tells why",
        f"{DEEPER} asks the switch itself",
    ),
    # ---- the driver
    "nic.chain": Meaning(
        "the NIC does not have that many tables (TC chains)",
        "use newer firmware, a newer NIC, or fewer recirculations",
    ),
    "nic.match": Meaning("the NIC cannot match on this", "leave the match out of the OpenFlow rules"),
    "nic.ct": Meaning(
        "the NIC or its driver cannot track connections",
        "use a NIC that can (ConnectX-5 or newer), and a driver with CONFIG_MLX5_TC_CT",
    ),
    "nic.ct-state": Meaning(
        "the NIC cannot match invalid packets or related connections (+inv, +rel)",
        "nothing, if such packets are few; else remove +inv and +rel from the OpenFlow rules; "
        "for OVN: ovn-nbctl set NB_Global . options:use_ct_inv_match=false",
    ),
    "nic.inline": Meaning(
        "the rule matches deeper in the packet than what the VFs' drivers pass to the NIC (inline mode)",
        "devlink dev eswitch set pci/{address} inline-mode transport, while no VF is bound",
    ),
    "nic.vlan": Meaning(
        "the NIC cannot push or pop VLANs like this", "use one VLAN for each VF, pushed on the way to the wire"
    ),
    "nic.rewrite": Meaning(
        "the NIC cannot rewrite headers like this", "set fewer fields in one rule, or use a newer NIC"
    ),
    "nic.meter": Meaning(
        "the NIC has no meters, or none like this",
        "use a NIC with meters (ConnectX-6 Dx or newer), ingress_policing_rate, or the VF's max_tx_rate",
    ),
    "nic.outputs": Meaning(
        "the NIC cannot send to that many ports, or to one port twice", "avoid flooding and mirrors"
    ),
    "nic.hairpin": Meaning(
        "the NIC does not send packets back to the port that they came from", "let the guest or the fabric do it"
    ),
    "nic.other-switch": Meaning(
        "it sends to a port that is not of the same eSwitch",
        "use ports of the same NIC, or bond its two PFs; use none of the host's own interfaces",
    ),
    "nic.to-host": Meaning(
        "it sends to the host itself, through a bridge's own interface",
        "nothing, if it is the host's own traffic; else keep floods off the bridge's own interface: "
        "ovs-ofctl mod-port {bridge} {bridge} no-flood",
    ),
    "nic.mirror": Meaning(
        "the NIC's firmware cannot change a packet after it has sent a copy", "use newer firmware, or no mirror"
    ),
    "nic.tunnel": Meaning(
        "encapsulation is off, or the NIC has none",
        "devlink dev eswitch set pci/{address} encap-mode basic, if the NIC supports tunnels",
    ),
    "nic.tunnel-route": Meaning(
        "the NIC's driver finds no usable route to the tunnel's other end",
        "route to it over the uplink, with the tunnel's local address there; check with ip route get REMOTE",
    ),
    "nic.full": Meaning(
        "the NIC has no room for another rule", "use fewer flows, a shorter max-idle, or a NIC with more room"
    ),
    "nic.refused": Meaning("the NIC's driver refuses the rule", "read its message, and what it does accept"),
    # ---- refused requests, for which there is no flow
    "datapath.refused": Meaning(
        "the datapath refused the flow, so the switch itself handles each of its packets",
        "read its message; an action or match may need a newer kernel or a module: dmesg | tail",
    ),
    "openflow.refused": Meaning(
        "the switch rejected the message, so its rules are missing; of a bundle, all are",
        "look in the log of the controller or agent for the request, and correct it",
    ),
    "port.error": Meaning(
        "Open vSwitch cannot use the interface, so no packet goes through it",
        "give it the name and type of an existing device, or remove it: ovs-vsctl del-port {port}",
    ),
    "controller.unreachable": Meaning(
        "the bridge's controller is not connected, so it gets no new rules",
        "start the controller, or correct its address: ovs-vsctl get-controller {port}; to do without one: "
        "ovs-vsctl del-controller {port}",
    ),
    "bridge.empty": Meaning(
        "the bridge drops every packet: it waits for rules from a controller (fail_mode secure), and has none",
        "start its controller, or: ovs-vsctl del-fail-mode {port}",
    ),
    NIC_UNEXPLAINED: Meaning(
        "TC has the flow but the NIC does not, and nothing that was examined tells why",
        "explain it on its host with a trial of its rule (without --no-trial and --from)",
    ),
}
