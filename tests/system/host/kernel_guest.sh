#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The init of a user-mode-linux: Open vSwitch on a real kernel, and `asap2 host explain`. $1: the repository, $2: a
# directory of the host's for results, $3: Python's import path.
# shellcheck disable=SC2086 # lists of words
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$3
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /mnt
mkdir -p /mnt/lib /mnt/repository /mnt/results
ln -s /usr/lib/uml/modules /mnt/lib/modules
mount --bind "$1" /mnt/repository
mount -t hostfs -o "$2" none /mnt/results
PYTHONPATH=${PYTHONPATH//"$1"//mnt/repository}
for place in /run /tmp /var/log /etc/openvswitch; do mount -t tmpfs tmpfs $place; done
mkdir -p /run/openvswitch /var/log/openvswitch
exec > /mnt/results/console 2>&1

needed="cls_flower act_mirred act_gact act_vlan act_skbedit act_tunnel_key act_pedit act_csum act_police act_mpls act_ct"
modprobe -d /mnt -a $needed nf_conntrack_ftp openvswitch veth dummy
ip link set lo up
ip link add p1 type veth peer name p2
for link in d0 d1; do ip link add $link type dummy; done
for link in p1 p2 d0 d1; do ip link set $link up multicast off; done

switch() {
    ovs-vswitchd --pidfile=/run/openvswitch/ovs-vswitchd.pid --log-file=/var/log/openvswitch/ovs-vswitchd.log \
        --detach --no-chdir unix:/run/openvswitch/db.sock
}
settled() { # on one CPU the switch soon sees that it is to have a thread for upcalls, starts it, and flushes all flows
    for _ in $(seq 600); do
        grep -q "n-handler-threads to 1" /var/log/openvswitch/ovs-vswitchd.log && break
        sleep 0.05
    done
}
explain() {
    (cd /mnt/repository && .venv/bin/python -m asap2.cli.main host explain --json) > "/mnt/results/$1.json"
}
number() {
    ovs-appctl dpctl/show | sed -n "s/.*port \([0-9]*\): $1\b.*/\1/p"
}
put() { # port, key, actions; @d0 is the number of d0
    ovs-appctl dpctl/add-flow "${2/PORT/in_port($(number "$1"))}" "${3/@d0/$(number d0)}"
}

ovsdb-tool create /etc/openvswitch/conf.db /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server /etc/openvswitch/conf.db --remote=punix:/run/openvswitch/db.sock \
    --pidfile=/run/openvswitch/ovsdb-server.pid --detach --no-chdir
options="other_config:hw-offload=true other_config:max-idle=1000000 other_config:max-revalidator=1000000"
ovs-vsctl --no-wait --timeout=15 init -- set Open_vSwitch . $options
switch
# p1 is added while TC has no ingress qdisc, d0 and d1 when it has
ovs-vsctl --timeout=15 add-br br0 -- set bridge br0 fail_mode=secure -- add-port br0 p1
modprobe -d /mnt sch_ingress
ovs-vsctl --timeout=15 add-port br0 d0 -- add-port br0 d1
settled
put p1 "PORT,eth(),eth_type(0x88cc)" "@d0"
put d1 "PORT,eth(),eth_type(0x88cc)" "$(number p1)"
explain unprepared

# the same switch, started anew on a kernel that has all but CONFIG_NET_TC_SKB_EXT
ovs-appctl exit
while [ -e /run/openvswitch/ovs-vswitchd.pid ]; do sleep 0.05; done
rm /var/log/openvswitch/ovs-vswitchd.log
switch
ovs-vsctl --timeout=15 set Open_vSwitch . $options # waits until the bridge is there
settled
udp="eth(),eth_type(0x0800),ipv4(src=10.9.0.1,tos=0/0,ttl=0/0,frag=no,proto=17,dst"
tcp="eth(),eth_type(0x0800),ipv4(src=10.9.0.1,tos=0/0,ttl=0/0,frag=no,proto=6,dst"
any="tcp(src=0/0,dst=0/0),tcp_flags(0/0)"
# conntrack zones, which the switch's own flows would have, this kernel's datapath refuses (CONFIG_NF_CONNTRACK_ZONES)
put p1 "dp_hash(0x7/0xf),PORT,$udp=10.9.0.3),udp(src=0/0,dst=0/0)" "@d0"
put p1 "PORT,$tcp=10.9.0.5),$any" "ct(commit,helper=ftp),@d0"
put p1 "PORT,$tcp=10.9.0.6),$any" "ct,recirc(5)"
put p1 "PORT,$tcp=10.9.0.7),$any" "ct(commit,nat(src=10.8.0.1-10.8.0.9:1000-2000)),@d0"
put p1 "PORT,$udp=10.9.0.8),udp(src=0/0,dst=0/0)" "@d0"
put p1 "ct_state(+trk+dnat),PORT,$tcp=10.9.0.9),$any" "@d0"
put p1 "ct_state(+trk),ct_tuple4(src=10.9.0.1,proto=6),PORT,$tcp=10.9.0.10),$any" "@d0"
explain prepared
ovs-appctl dpctl/dump-flows -m > /mnt/results/flows
# NSH has no notation that dpctl reads back: a packet, whose flow the switch itself puts in
ovs-ofctl add-flow br0 dl_type=0x894f,nsh_mdtype=1,nsh_spi=5,actions=output:d0
for _ in $(seq 50); do
    ovs-appctl dpctl/dump-flows | grep -q "nsh(" && break
    python3 -c 'import socket
service = bytes.fromhex("0fc6 0103 000005ff") + bytes(16)  # RFC 8300: MD type 1, an Ethernet frame next, path 5, index 255
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as p2:
    p2.bind(("p2", 0))
    p2.send(bytes(12) + b"\x89\x4f" + service + bytes(60))'
    sleep 0.1
done
explain served
cp /var/log/openvswitch/ovs-vswitchd.log /mnt/results/log
python3 -c "import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)"
