// SPDX-License-Identifier: Apache-2.0

// Command sriov gives a VF to a pod and takes it back, by the calls that the SR-IOV CNI plugin makes for ADD and DEL.
//
//	sriov add PCI NETNS NAME VLAN QOS MAC MIN_RATE MAX_RATE TRUST SPOOFCHK   prints the state that del reads from its input
//	sriov del
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

const devices = "/sys/bus/pci/devices"

// State is what add has found and what del restores.
type State struct {
	PF, Name, Pod, NetNS string
	VF, MTU              int
	Effective            string
	Original             netlink.VfInfo
}

func only(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%s: %d files", pattern, len(found))
	}
	return filepath.Base(found[0]), nil
}

// uplink is the netdev of a PF, which in switchdev mode has representors beside it.
func uplink(pci string) (string, error) {
	names, err := filepath.Glob(filepath.Join(devices, pci, "physfn/net/*"))
	if err != nil {
		return "", err
	}
	for _, path := range names {
		port, err := os.ReadFile(filepath.Join(path, "phys_port_name"))
		if len(names) == 1 || err == nil && regexp.MustCompile(`^p\d+\n$`).Match(port) {
			return filepath.Base(path), nil
		}
	}
	return "", fmt.Errorf("the PF of %s has no uplink", pci)
}

func number(pf, pci string) (int, error) {
	links, err := filepath.Glob(filepath.Join("/sys/class/net", pf, "device/virtfn*"))
	if err != nil {
		return 0, err
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && filepath.Base(target) == pci {
			return strconv.Atoi(strings.TrimPrefix(filepath.Base(link), "virtfn"))
		}
	}
	return 0, fmt.Errorf("no VF of %s has the address %s", pf, pci)
}

// within calls with a handle of the pod's namespace and this thread in it, as the plugin's library does.
func within(path string, call func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	if err != nil {
		return err
	}
	defer here.Close()
	there, err := netns.GetFromPath(path)
	if err != nil {
		return err
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		return err
	}
	defer netns.Set(here)
	return call()
}

func first(errs ...func() error) error {
	for _, call := range errs {
		if err := call(); err != nil {
			return err
		}
	}
	return nil
}

// configure sets what is to change, as the plugin sets only what its configuration names.
func configure(pf netlink.Link, vf int, wanted netlink.VfInfo) error {
	pf, err := netlink.LinkByIndex(pf.Attrs().Index)
	if err != nil {
		return err
	}
	now := pf.Attrs().Vfs[vf]
	return first(
		func() error { return netlink.LinkSetVfVlanQos(pf, vf, wanted.Vlan, wanted.Qos) },
		func() error { return netlink.LinkSetVfHardwareAddr(pf, vf, wanted.Mac) },
		func() error { return netlink.LinkSetVfRate(pf, vf, int(wanted.MinTxRate), int(wanted.MaxTxRate)) },
		func() error {
			if wanted.Spoofchk == now.Spoofchk {
				return nil
			}
			return netlink.LinkSetVfSpoofchk(pf, vf, wanted.Spoofchk)
		},
		func() error {
			if wanted.Trust == now.Trust {
				return nil
			}
			return netlink.LinkSetVfTrust(pf, vf, wanted.Trust == 1)
		},
		func() error {
			if wanted.LinkState == now.LinkState {
				return nil
			}
			return netlink.LinkSetVfState(pf, vf, wanted.LinkState)
		},
	)
}

func rename(link netlink.Link, name string) error {
	return first(
		func() error { return netlink.LinkSetDown(link) },
		func() error { return netlink.LinkSetName(link, name) },
	)
}

// through moves a link to the pod by way of a namespace that exists for this alone, where it gets its name: another
// program cannot take the name meanwhile, nor find the link.
func through(link netlink.Link, name string, pod netns.NsHandle) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	if err != nil {
		return err
	}
	defer here.Close()
	between, err := netns.New()
	if err != nil {
		return err
	}
	defer between.Close()
	defer netns.Set(here)
	var moved netlink.Link
	return first(
		func() error { return netns.Set(here) },
		func() error { return netlink.LinkSetNsFd(link, int(between)) },
		func() error { return netns.Set(between) },
		func() error { moved, err = netlink.LinkByName(link.Attrs().Name); return err },
		func() error { return netlink.LinkSetName(moved, name) },
		func() error { return netlink.LinkSetNsFd(moved, int(pod)) },
	)
}

func add(words []string) error {
	pci, state := words[0], State{NetNS: words[1], Pod: words[2]}
	var err error
	if state.PF, err = uplink(pci); err != nil {
		return err
	}
	if state.VF, err = number(state.PF, pci); err != nil {
		return err
	}
	if state.Name, err = only(filepath.Join(devices, pci, "net/*")); err != nil {
		return err
	}
	pf, err := netlink.LinkByName(state.PF)
	if err != nil {
		return err
	}
	found := false
	for _, vf := range pf.Attrs().Vfs {
		if vf.ID == state.VF {
			state.Original, found = vf, true
		}
	}
	if !found {
		return fmt.Errorf("failed to find vf %d", state.VF)
	}
	wanted := state.Original
	values := make([]int, len(words))
	for _, i := range []int{3, 4, 6, 7} {
		if values[i], err = strconv.Atoi(words[i]); err != nil {
			return err
		}
	}
	wanted.Vlan, wanted.Qos, wanted.MinTxRate, wanted.MaxTxRate = values[3], values[4], uint32(values[6]), uint32(values[7])
	if wanted.Mac, err = net.ParseMAC(words[5]); err != nil {
		return err
	}
	wanted.Spoofchk = words[9] == "on"
	wanted.Trust = 0
	if words[8] == "on" {
		wanted.Trust = 1
	}
	if err := configure(pf, state.VF, wanted); err != nil {
		return err
	}

	link, err := netlink.LinkByName(state.Name)
	if err != nil {
		return err
	}
	state.MTU, state.Effective = link.Attrs().MTU, link.Attrs().HardwareAddr.String()
	pod, err := netns.GetFromPath(state.NetNS)
	if err != nil {
		return err
	}
	if err := through(link, state.Pod, pod); err != nil {
		return err
	}
	if err := within(state.NetNS, func() error {
		if link, err = netlink.LinkByName(state.Pod); err != nil {
			return err
		}
		notify := filepath.Join("/proc/sys/net/ipv4/conf", state.Pod, "arp_notify")
		return first(
			func() error { return os.WriteFile(notify, []byte("1"), 0o644) },
			func() error { return netlink.LinkSetHardwareAddr(link, wanted.Mac) },
			func() error { return netlink.LinkSetUp(link) },
		)
	}); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(state)
}

func del() error {
	var state State
	if err := json.NewDecoder(os.Stdin).Decode(&state); err != nil {
		return err
	}
	home, err := netns.Get()
	if err != nil {
		return err
	}
	if err := within(state.NetNS, func() error {
		link, err := netlink.LinkByName(state.Pod)
		if err != nil {
			return err
		}
		mac, err := net.ParseMAC(state.Effective)
		if err != nil {
			return err
		}
		return first(
			func() error { return rename(link, state.Name) },
			func() error { return netlink.LinkSetHardwareAddr(link, mac) },
			func() error { return netlink.LinkSetMTU(link, state.MTU) },
			func() error { return netlink.LinkSetNsFd(link, int(home)) },
		)
	}); err != nil {
		return err
	}
	pf, err := netlink.LinkByName(state.PF)
	if err != nil {
		return err
	}
	return configure(pf, state.VF, state.Original)
}

func main() {
	var err error
	if os.Args[1] == "add" {
		err = add(os.Args[2:])
	} else {
		err = del()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
