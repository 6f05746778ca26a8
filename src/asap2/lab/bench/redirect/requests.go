// SPDX-License-Identifier: Apache-2.0

// requests NETDEV REQUEST COUNT makes a request so often and prints how many nanoseconds each took: requests.c in Go, whose
// runtime makes its system calls itself and hands the processor on while one waits.
package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const (
	warmUp        = 100
	getDriver     = 3 // ETHTOOL_GDRVINFO
	siocethtool   = 0x8946
	genericFamily = 16 // GENL_ID_CTRL
	getFamily     = 3  // CTRL_CMD_GETFAMILY
	familyName    = 2  // CTRL_ATTR_FAMILY_NAME
)

// The byte order of the architectures that redirectd knows; binary.NativeEndian is of Go 1.21.
var order = binary.LittleEndian

var room [65536]byte

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func message(kind uint16, payload []byte) []byte {
	request := make([]byte, syscall.NLMSG_HDRLEN, syscall.NLMSG_HDRLEN+len(payload))
	order.PutUint32(request, uint32(syscall.NLMSG_HDRLEN+len(payload)))
	order.PutUint16(request[4:], kind)
	order.PutUint16(request[6:], syscall.NLM_F_REQUEST)
	return append(request, payload...)
}

func attribute(kind uint16, value []byte) []byte {
	header := make([]byte, 4, 4+len(value))
	order.PutUint16(header, uint16(4+len(value)))
	order.PutUint16(header[2:], kind)
	return append(header, value...)
}

// asker returns a function that makes the netlink request once.
func asker(protocol int, request []byte) func() error {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, protocol)
	check(err)
	kernel := &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}
	return func() error {
		if err := syscall.Sendto(fd, request, 0, kernel); err != nil {
			return err
		}
		got, _, err := syscall.Recvfrom(fd, room[:], 0)
		if err != nil {
			return err
		}
		if got < syscall.NLMSG_HDRLEN || order.Uint16(room[4:]) == syscall.NLMSG_ERROR {
			return fmt.Errorf("refused")
		}
		return nil
	}
}

// driver returns a function that asks for a netdev's driver by ioctl.
func driver(name string) func() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	check(err)
	var request struct {
		name [16]byte
		data unsafe.Pointer
		rest [16]byte
	}
	var info [196]byte // struct ethtool_drvinfo
	copy(request.name[:15], name)
	request.data = unsafe.Pointer(&info)
	return func() error {
		order.PutUint32(info[:], getDriver)
		if _, _, number := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), siocethtool,
			uintptr(unsafe.Pointer(&request))); number != 0 {
			return number
		}
		return nil
	}
}

func main() {
	if len(os.Args) != 4 {
		os.Exit(2)
	}
	times, err := strconv.Atoi(os.Args[3])
	check(err)
	var ask func() error
	switch os.Args[2] {
	case "driver":
		ask = driver(os.Args[1])
	case "family":
		payload := append([]byte{getFamily, 1, 0, 0}, attribute(familyName, []byte("devlink\x00"))...)
		ask = asker(syscall.NETLINK_GENERIC, message(genericFamily, payload))
	case "link":
		netdev, err := net.InterfaceByName(os.Args[1])
		check(err)
		link := make([]byte, syscall.SizeofIfInfomsg)
		order.PutUint32(link[4:], uint32(netdev.Index))
		ask = asker(syscall.NETLINK_ROUTE, message(syscall.RTM_GETLINK, link))
	default:
		route := make([]byte, syscall.SizeofRtMsg)
		route[0], route[1] = syscall.AF_INET, 32
		payload := append(route, attribute(syscall.RTA_DST, []byte{127, 0, 0, 1})...)
		ask = asker(syscall.NETLINK_ROUTE, message(syscall.RTM_GETROUTE, payload))
	}
	took := make([]time.Duration, times)
	for i := -warmUp; i < times; i++ {
		before := time.Now()
		err := ask()
		after := time.Since(before)
		check(err)
		if i >= 0 {
			took[i] = after
		}
	}
	for _, each := range took {
		fmt.Println(each.Nanoseconds())
	}
}
