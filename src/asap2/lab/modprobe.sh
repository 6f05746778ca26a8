#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# modprobe of a node, /usr/local/sbin/modprobe there. To unload the NIC's driver is to unbind the NIC's functions; to
# load it is to bind the physical ones. To unload openvswitch, which no datapath may use then, is to forget the limits of
# its connection zones, and the IPv6 fragments that wait for others. Other modules that the node's daemon stands for are
# always loaded. All else is for the machine's own modprobe.
DRIVER=/sys/bus/pci/drivers/mlx5_core
UNLOAD=/run/asap2-proc/unload  # nic/faces/sysfs/modules.py

remove='' dry='' many='' names='' argument='' quiet='' status=0
for word; do
    case $argument$word in
        -*[CdSw] | --config | --dirname | --set-version | --wait) argument=' ' ;;
        --remove | --remove-*) remove=1 many=1 ;;
        --all) many=1 ;;
        --quiet) quiet=1 ;;
        --dry-run | --show | --show-* | --resolve-alias | --dump-modversions) dry=1 ;;
        --*) ;;
        -*)
            case $word in *q*) quiet=1 ;; esac
            case $word in *r*) remove=1 many=1 ;; *a*) many=1 ;; *[nDRcV]*) dry=1 ;; esac
            ;;
        ' '*) argument='' ;;
        *) [ "$names" ] && [ ! "$many" ] || names="$names $word" ;;  # other words are the module's parameters
    esac
done

unload() {
    for device in "$DRIVER"/????:??:??.?; do
        [ -e "$device/physfn" ] || [ ! -e "$device" ] || echo "${device##*/}" > "$DRIVER/unbind"
    done
}

load() {
    for device in /sys/bus/pci/devices/*; do
        # who sets the number of VFs has them bound
        [ -e "$device/physfn" ] || [ -e "$device/driver" ] || echo "${device##*/}" > /sys/bus/pci/drivers_probe
    done
}

others=''
for name in $names; do
    case $name in
        mlx5_core | mlx5-core | openvswitch | cls_flower | cls_matchall | sch_ingress) ;;
        act_gact | act_mirred | act_vlan | act_tunnel_key | act_pedit | act_csum | act_skbedit) ;;
        act_ct | act_police | act_sample | act_mpls | act_simple | cls_basic | psample | 8021q | dummy | bonding) ;;
        nf_conntrack | nf_conntrack_netlink | nfnetlink_cttimeout | nf_nat | nf_flow_table) ;;
        nf_conntrack_ftp | nf_conntrack_tftp | nf_nat_ftp | nf_nat_tftp) ;;
        *) others=1 ;;
    esac
done
if [ "$others" ] || [ ! "$names" ]; then exec /sbin/modprobe "$@"; fi
[ ! "$dry" ] || exit 0
for name in $names; do
    case $name in
        mlx5_core | mlx5-core) if [ "$remove" ]; then unload; else load; fi ;;
        openvswitch)
            if [ "$remove" ] && ! echo openvswitch 2>/dev/null > $UNLOAD; then
                [ "$quiet" ] || echo "modprobe: FATAL: Module openvswitch is in use." >&2
                status=1
            fi
            ;;
    esac
done
exit "$status"
