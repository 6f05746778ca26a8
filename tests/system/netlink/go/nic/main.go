// SPDX-License-Identifier: Apache-2.0

// Command nic asks for a NIC as Kubernetes' programs do, by vishvananda/netlink and safchain/ethtool, which make their
// system calls themselves. Each sub-command prints one JSON value.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

var commands = map[string]func([]string) (interface{}, error){
	"links":     links,
	"devlink":   devlink,
	"eswitch":   eswitch,
	"delete":    deleteLink,
	"set-mac":   setMac,
	"ethtool":   ethtoolInfo,
	"flower":    flower,
	"subscribe": subscribe,
	"threads":   threads,
	"netns":     inNetns,
	"sysfs":     sysfs,
}

type link struct {
	Type string
	MTU  int
	Vfs  []netlink.VfInfo `json:",omitempty"`
}

func links([]string) (interface{}, error) {
	all, err := netlink.LinkList()
	found := map[string]link{}
	for _, one := range all {
		found[one.Attrs().Name] = link{one.Type(), one.Attrs().MTU, one.Attrs().Vfs}
	}
	return found, err
}

func devlink([]string) (interface{}, error) {
	devices, err := netlink.DevLinkGetDeviceList()
	if err != nil {
		return nil, err
	}
	ports, err := netlink.DevLinkGetAllPortList()
	return map[string]interface{}{"Devices": devices, "Ports": ports}, err
}

func eswitch(words []string) (interface{}, error) {
	device, err := netlink.DevLinkGetDeviceByName("pci", words[0])
	if err != nil {
		return nil, err
	}
	if len(words) > 1 {
		if err := netlink.DevLinkSetEswitchMode(device, words[1]); err != nil {
			return nil, err
		}
		if device, err = netlink.DevLinkGetDeviceByName("pci", words[0]); err != nil {
			return nil, err
		}
	}
	return device.Attrs.Eswitch.Mode, nil
}

func deleteLink(words []string) (interface{}, error) {
	one, err := netlink.LinkByName(words[0])
	if err != nil {
		return nil, err
	}
	return "deleted", netlink.LinkDel(one)
}

func setMac(words []string) (interface{}, error) {
	pf, err := netlink.LinkByName(words[0])
	if err != nil {
		return nil, err
	}
	vf, err := strconv.Atoi(words[1])
	if err != nil {
		return nil, err
	}
	mac, err := net.ParseMAC(words[2])
	if err != nil {
		return nil, err
	}
	return "set", netlink.LinkSetVfHardwareAddr(pf, vf, mac)
}

func ethtoolInfo(words []string) (interface{}, error) {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return nil, err
	}
	defer tool.Close()
	info, err := tool.DriverInfo(words[0])
	if err != nil {
		return nil, err
	}
	features, err := tool.Features(words[0])
	if err != nil {
		return nil, err
	}
	statistics, err := tool.Stats(words[0])
	if err != nil {
		return nil, err
	}
	_, counts := statistics["vport_rx_packets"]
	return map[string]interface{}{
		"Driver": info.Driver, "BusInfo": info.BusInfo, "HwTcOffload": features["hw-tc-offload"], "Counts": counts,
	}, nil
}

func flower(words []string) (interface{}, error) {
	from, err := netlink.LinkByName(words[0])
	if err != nil {
		return nil, err
	}
	to, err := netlink.LinkByName(words[1])
	if err != nil {
		return nil, err
	}
	qdisc := &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: from.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
		},
		QdiscType: "clsact",
	}
	if err := netlink.QdiscAdd(qdisc); err != nil {
		return nil, err
	}
	defer netlink.QdiscDel(qdisc)
	filter := &netlink.Flower{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: from.Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS, Priority: 1, Protocol: unix.ETH_P_IP,
		},
		DestIP:  net.ParseIP("10.57.0.2"),
		EthType: unix.ETH_P_IP,
		Actions: []netlink.Action{netlink.NewMirredAction(to.Attrs().Index)},
	}
	if err := netlink.FilterAdd(filter); err != nil {
		return nil, err
	}
	listed, err := netlink.FilterList(from, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return nil, err
	}
	shown := []string{}
	for _, one := range listed {
		found, ok := one.(*netlink.Flower)
		if !ok {
			return nil, fmt.Errorf("a filter is a %T", one)
		}
		shown = append(shown, fmt.Sprintf("%s %s", found.DestIP, found.Actions[0].Type()))
	}
	return shown, nil
}

// subscribe prints "ready", and then the next change that is told of the link.
func subscribe(words []string) (interface{}, error) {
	updates, done := make(chan netlink.LinkUpdate), make(chan struct{})
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		return nil, err
	}
	fmt.Println("ready")
	for update := range updates {
		attributes := update.Link.Attrs()
		if attributes.Name == words[0] {
			return map[string]interface{}{"Type": update.Link.Type(), "MTU": attributes.MTU, "Parent": len(attributes.Vfs)}, nil
		}
	}
	return nil, errors.New("the subscription ended")
}

// threads asks on many threads at once while signals interrupt them.
func threads([]string) (interface{}, error) {
	var (
		all    sync.WaitGroup
		mutex  sync.Mutex
		wrong  []string
		worker = func() {
			defer all.Done()
			runtime.LockOSThread()
			for i := 0; i < 20; i++ {
				if _, err := netlink.LinkByName("enp3s0f0"); err != nil {
					mutex.Lock()
					wrong = append(wrong, err.Error())
					mutex.Unlock()
				}
			}
		}
	)
	interval := [2]syscall.Timeval{{Usec: 1000}, {Usec: 1000}}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGALRM)
	if _, _, number := syscall.Syscall(syscall.SYS_SETITIMER, 0, uintptr(unsafe.Pointer(&interval)), 0); number != 0 {
		return nil, number
	}
	all.Add(8)
	for i := 0; i < 8; i++ {
		go worker()
	}
	all.Wait()
	return wrong, nil
}

// inNetns lists the links of another network namespace, which this thread alone enters.
func inNetns(words []string) (interface{}, error) {
	runtime.LockOSThread()
	there, err := netns.GetFromPath(words[0])
	if err != nil {
		return nil, err
	}
	if err := netns.Set(there); err != nil {
		return nil, err
	}
	return links(nil)
}

func sysfs(words []string) (interface{}, error) {
	found := map[string]string{}
	for _, path := range words {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		found[path] = string(text)
	}
	return found, nil
}

func main() {
	command, known := commands[os.Args[1]]
	if !known {
		fmt.Fprintln(os.Stderr, "no such command:", os.Args[1])
		os.Exit(2)
	}
	value, err := command(os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(value)
}
