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
    """What a code means, and what to do. ``fix`` may have ``{port}`` for the flow's port, or for the port or bridge
    that a refusal is about, ``{bridge}`` and ``{service}`` of Open vSwitch, and ``{pf}`` and PCI ``{address}`` of a
    NIC."""

    why: str
    fix: str


OFFLOADED, TAKEN_NOW = "offloaded", "taken-now"
TC_UNEXPLAINED, NIC_UNEXPLAINED = "tc.unexplained", "nic.unexplained"
UNEXPLAINED = (TC_UNEXPLAINED, NIC_UNEXPLAINED)
"""Last resorts: they name the layer that keeps the flow, and no more."""
NEIGHBOURS = "nothing; Open vSwitch itself matches on their addresses, and they are few packets"
"""What to do about ARP and neighbour discovery."""
DEEPER = "asap2 host explain --deep"

REASONS: dict[str, Meaning] = {
    OFFLOADED: Meaning("the NIC has it", "nothing"),
    TAKEN_NOW: Meaning(
        "the NIC takes the rule now: what was in the way when the flow was put in is gone, and Open vSwitch does not "
        "try again by itself",
        PURGE,
    ),
    # ---- Open vSwitch's settings
    "switch.off": Meaning(
        "Open vSwitch offloads nothing unless it is told to",
        "asap2 host setup, or: ovs-vsctl set Open_vSwitch . other_config:hw-offload=true, then systemctl restart "
        "{service}",
    ),
    "switch.not-in-force": Meaning("hw-offload counts from the switch's next start", "systemctl restart {service}"),
    "switch.skip-hw": Meaning(
        "tc-policy skip_hw keeps all flows in TC's software",
        "ovs-vsctl remove Open_vSwitch . other_config tc-policy, then systemctl restart {service}",
    ),
    "switch.userspace": Meaning(
        "a bridge of the userspace datapath does not offload through TC",
        "ovs-vsctl set bridge {bridge} datapath_type=system",
    ),
    # ---- ports
    "port.gone": Meaning(
        "a port that the flow names is no longer a port of the datapath", f"{PURGE}; it goes away by itself when idle"
    ),
    "port.internal": Meaning(
        "the packets come from the host itself, over a bridge's own interface, not from the NIC",
        "nothing, for the host's own traffic; else give the host a VF or the uplink's address instead",
    ),
    "port.not-nic": Meaning(
        "the packets come in at a device that is no port of a switchdev NIC",
        "give the guest a VF in place of this device",
    ),
    "port.other-namespace": Meaning(
        "a port that the flow names is in another network namespace, where Open vSwitch can put no rule for it",
        "nothing, for the ports of DHCP and routers; for a guest, give it a VF in place of this device",
    ),
    "port.legacy": Meaning("the NIC's eSwitch is in legacy mode", "asap2 host setup {pf}"),
    "port.feature-off": Meaning("hw-tc-offload is off on the port", f"ethtool -K {{port}} hw-tc-offload on && {PURGE}"),
    "port.no-qdisc": Meaning(
        "the port has no ingress qdisc to put the rule into: another program removed it",
        f"tc qdisc add dev {{port}} ingress && {PURGE}",
    ),
    "port.no-flow-api": Meaning(
        "Open vSwitch could not set the port up for offload when it was added",
        "look for the port in the log; ovs-vsctl del-port {port}, and add it again",
    ),
    "port.tunnel-elsewhere": Meaning(
        "the tunnel's packets do not come in or go out over a switchdev NIC that may encapsulate",
        "let the route to the other end lead over the uplink, with the local address on it",
    ),
    # ---- matches that Open vSwitch's TC layer does not have
    "match.vlan-mask": Meaning(
        "TC matches a VLAN or its priority whole or not at all, and not that there is any tag",
        "match on dl_vlan=N, not on vlan_tci with a mask",
    ),
    "match.skb-mark": Meaning("TC has no match on the packet mark", "no pkt_mark in OpenFlow rules"),
    "match.skb-priority": Meaning("TC has no match on the packet's priority", "no skb_priority in OpenFlow rules"),
    "match.dp-hash": Meaning(
        "TC has no match on the datapath's hash, by which bonds (balance-tcp) and select groups choose",
        "bond the NIC's ports in the kernel (802.3ad), or a group with selection_method=hash on exact fields",
    ),
    "match.packet-type": Meaning(
        "packets without an Ethernet header are not offloaded", "a tunnel with packet_type=legacy_l2"
    ),
    "match.no-ethertype": Meaning(
        "packets without an Ethernet type (802.2: spanning tree and the like) are not offloaded",
        "nothing: they are few",
    ),
    "match.mpls-stack": Meaning("TC matches one MPLS label, not a stack", "match on the outermost label alone"),
    "match.ipv6-fragment": Meaning("fragments of IPv6 packets are not offloaded", "a larger MTU, or a smaller MSS"),
    "match.ct-state": Meaning(
        "what it matches of connection tracking (state, zone, mark, label) is not something that TC has here",
        "Linux 5.15 or newer with act_ct; no +snat, +dnat matches",
    ),
    "match.ct-tuple": Meaning("TC has no match on a connection's original addresses", "no ct_nw_src and the like"),
    "match.nd": Meaning(
        "TC has no match on the fields of neighbour discovery", "no nd_target, nd_sll, nd_tll in OpenFlow rules"
    ),
    "match.nsh": Meaning("TC has no match on NSH", "nothing: NSH is not offloaded"),
    "match.tunnel": Meaning(
        "the tunnel's fields that it matches are not ones that TC has", "no OAM, GBP, ERSPAN or GTP-U matches"
    ),
    "match.incomplete": Meaning(
        "it matches on too little: this Open vSwitch wants the whole Ethernet type, and of IP whether it is a fragment",
        "nothing: flows that Open vSwitch makes by itself have both",
    ),
    "match.recirculation": Meaning(
        "it goes on from an earlier step, and TC does not have that step",
        "look why the flow with that recirc() in its actions is not in TC: asap2 host explain --all",
    ),
    "match.other": Meaning("TC has no such match", "leave the field out of the OpenFlow rules"),
    # ---- actions that it does not have
    "action.controller": Meaning(
        "the packets go to the OpenFlow controller", "no output to the controller for traffic that is to be offloaded"
    ),
    "action.slow-path": Meaning(
        "the switch itself handles these packets (LACP, BFD, CFM, STP, or an action that only it can do)",
        "nothing for protocols, they are few; else look for the action in the OpenFlow rules: ovs-appctl ofproto/trace",
    ),
    "action.sampling": Meaning("packets are sampled for sFlow or IPFIX", "ovs-vsctl clear bridge {bridge} sflow ipfix"),
    "action.userspace": Meaning("the packets go to a program", "ovs-appctl ofproto/trace shows the rule that does it"),
    "action.truncate": Meaning("TC has no truncation", "a mirror without snaplen, output without max_len"),
    "action.hash": Meaning(
        "the datapath's hash, by which bonds (balance-tcp) and select groups choose, is not in TC",
        "bond the NIC's ports in the kernel (802.3ad)",
    ),
    "action.clone": Meaning(
        "TC has no copy that is changed by itself", "ovs-appctl ofproto/trace shows the rule that does it"
    ),
    "action.meter": Meaning(
        "the meter is not in TC: it has no drop band first, or the kernel has no policer for it",
        "a meter with one drop band; Open vSwitch 3.0 or newer, act_police in the kernel",
    ),
    "action.ct": Meaning(
        "this kernel's TC does not track connections", "Linux 5.7 or newer with act_ct (CONFIG_NET_ACT_CT)"
    ),
    "action.ct-helper": Meaning(
        "TC has no helpers for protocols (ct(alg=…))", "no alg for traffic that is to be offloaded"
    ),
    "action.set-field": Meaning("TC cannot set this field", "leave it out of the OpenFlow rules"),
    "action.set-fragment": Meaning(
        "of fragments nothing can be rewritten that the checksum of TCP, UDP or ICMPv6 covers: TC has no whole packet",
        "a larger MTU, or a smaller MSS, so that there are no fragments",
    ),
    "action.set-protocol": Meaning(
        "to set addresses, TTL or ports, the rule must say TCP, UDP or ICMP, as checksums follow from it",
        "match on tcp, udp or icmp in the OpenFlow rule that sets the field",
    ),
    "action.tunnel-option": Meaning("TC cannot set this of a tunnel", "no GBP, ERSPAN or GTP-U options"),
    "action.too-many": Meaning(
        "a TC rule has at most 16 actions of Open vSwitch's", "fewer outputs: no flooding; fewer mirrors"
    ),
    "action.tunnel-mirror": Meaning(
        "a packet out of a tunnel cannot be copied first and looked up again then", "no mirror on the tunnel's bridge"
    ),
    "action.ethernet": Meaning(
        "Ethernet headers are not pushed or popped in TC", "a tunnel with packet_type=legacy_l2"
    ),
    "action.nsh": Meaning("NSH is not in TC", "nothing: NSH is not offloaded"),
    "action.check-length": Meaning(
        "packets are measured (check_pkt_len), which TC can since Open vSwitch 3.0", "a newer Open vSwitch"
    ),
    "action.recirculate": Meaning(
        "it is one of several steps, and this kernel cannot go on in software where TC stopped: TC and the datapath do "
        "not share recirculation ids",
        "a kernel with CONFIG_NET_TC_SKB_EXT (Linux 5.5 or newer)",
    ),
    "action.flow-api": Meaning(
        "it sends to a port that Open vSwitch has not set up for offload", "look for that port in the log; add it again"
    ),
    "action.other": Meaning("TC has no such action", "ovs-appctl ofproto/trace shows the rule that asks for it"),
    # ---- the kernel
    "tc.no-priority": Meaning(
        "there is no TC priority left for another shape of rule", "fewer shapes of OpenFlow rules"
    ),
    "tc.refused": Meaning("the kernel's TC refuses the rule", "see what it says"),
    TC_UNEXPLAINED: Meaning(
        "Open vSwitch's TC layer, or the kernel's TC, did not take the flow, and nothing that was looked at tells why",
        f"{DEEPER} asks the switch itself",
    ),
    # ---- the driver
    "nic.chain": Meaning("the NIC has not so many tables (TC chains)", "newer firmware or NIC; fewer recirculations"),
    "nic.match": Meaning("the NIC cannot match on this", "leave the match out of the OpenFlow rules"),
    "nic.inline": Meaning(
        "the rule looks deeper into packets than the VFs' drivers show the NIC",
        "devlink dev eswitch set pci/{address} inline-mode transport, while no VF is bound",
    ),
    "nic.vlan": Meaning("the NIC cannot push or pop VLANs like this", "one VLAN a VF, pushed on its way to the wire"),
    "nic.rewrite": Meaning("the NIC cannot rewrite headers like this", "fewer fields set in one rule, or a newer NIC"),
    "nic.meter": Meaning(
        "the NIC has no meters, or none like this",
        "a NIC with meters (ConnectX-6 Dx or newer); ingress_policing_rate, or max_tx_rate of the VF",
    ),
    "nic.outputs": Meaning("the NIC cannot send to so many ports, or twice to one", "no flooding; fewer mirrors"),
    "nic.hairpin": Meaning(
        "the NIC does not send packets back to where they came from", "let the guest, or the fabric, do it"
    ),
    "nic.other-switch": Meaning(
        "it sends to a port that is not of the same eSwitch",
        "ports of the same NIC, or two PFs bonded; none of the host's own interfaces",
    ),
    "nic.to-host": Meaning(
        "it sends to the host itself, over a bridge's own interface",
        "nothing, for the host's own traffic; else keep floods off the bridge's own interface: "
        "ovs-ofctl mod-port {bridge} {bridge} no-flood",
    ),
    "nic.mirror": Meaning(
        "the NIC's firmware cannot change a packet after a copy was sent", "newer firmware; no mirror"
    ),
    "nic.tunnel": Meaning(
        "the NIC does not encapsulate here",
        "devlink dev eswitch set pci/{address} encap-mode basic, where the NIC has tunnels",
    ),
    "nic.tunnel-route": Meaning(
        "the NIC's driver finds no way to the tunnel's other end",
        "a route to it over the uplink, with the tunnel's local address there: ip route get REMOTE",
    ),
    "nic.full": Meaning(
        "the NIC has no room for another rule", "fewer flows, or a shorter max-idle; a NIC with more room"
    ),
    "nic.refused": Meaning("the NIC's driver refuses the rule", "see what it says, and what it takes"),
    # ---- what there is no flow of, as it was refused
    "datapath.refused": Meaning(
        "the datapath does not take the flow, so the switch itself handles each of its packets",
        "see what it says; an action or match may need a newer kernel or a module: dmesg | tail",
    ),
    "openflow.refused": Meaning(
        "the switch rejected the message, so its rules are not there; of a bundle, none is",
        "look in the log of the controller or agent for what it asked, and mend that",
    ),
    "port.error": Meaning(
        "Open vSwitch cannot use the interface, so no packet goes through it",
        "give it the name and type of a device that is there, or take it out: ovs-vsctl del-port {port}",
    ),
    "controller.unreachable": Meaning(
        "the bridge's controller is not connected, so it gets no new rules",
        "start the controller, or mend its address: ovs-vsctl get-controller {port}; to do without one: "
        "ovs-vsctl del-controller {port}",
    ),
    "bridge.empty": Meaning(
        "the bridge drops every packet: it is to have rules from a controller, and has none",
        "start its controller, or: ovs-vsctl del-fail-mode {port}",
    ),
    NIC_UNEXPLAINED: Meaning(
        "TC has the flow, the NIC has not, and nothing that was looked at tells why",
        "explain it on its host, with the trial of its rule (no --no-trial, no --from)",
    ),
}
