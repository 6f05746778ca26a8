// SPDX-License-Identifier: Apache-2.0
/*
 * The seccomp filter of programs in nodes and guests: it notifies redirectd of the system calls that may concern the NIC.
 *
 * The netlink sockets that redirectd makes have numbers from RANGE_FIRST on, so the filter tells their calls from others
 * by the first argument. Calls that are not listed never run the filter: the kernel finds out that it allows them all.
 */
#ifndef ASAP2_FILTER_H
#define ASAP2_FILTER_H

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/net.h>
#include <linux/seccomp.h>
#include <stddef.h>

#include "redirect.h"

#define RANGE_FIRST 900
#define RANGE_END 1024 /* descriptors beyond cannot be used with select(2) */

#if defined(__x86_64__)
#define NATIVE AUDIT_ARCH_X86_64
#define COMPAT AUDIT_ARCH_I386
#define COMPAT_SOCKET 359 /* arch/x86/entry/syscalls/syscall_32.tbl */
#define COMPAT_SOCKETCALL 102
#define COMPAT_IOCTL 54
#define COMPAT_CLOSE 6
#define X32_BIT 0x40000000
#elif defined(__aarch64__)
#define NATIVE AUDIT_ARCH_AARCH64
#define COMPAT AUDIT_ARCH_ARM
#define COMPAT_SOCKET 281 /* arch/arm/tools/syscall.tbl */
#define COMPAT_IOCTL 54
#define COMPAT_CLOSE 6
#else
#error "redirectd knows x86-64 and AArch64"
#endif

/* Calls that are notified when their first argument is in the range; of setsockopt() and fcntl() some. */
static const int ranged[] = {
	SYS_recvmsg,  SYS_sendmsg,  SYS_read,    SYS_write,    SYS_recvfrom, SYS_sendto,
	SYS_recvmmsg, SYS_sendmmsg, SYS_readv,   SYS_writev,   SYS_bind,     SYS_connect,
	SYS_dup,      SYS_dup3,     SYS_preadv2, SYS_pwritev2, SYS_sendfile,
#ifdef SYS_dup2
	SYS_dup2,
#endif
};

/*
 * What a ring is asked for, no filter sees. So there are none, as in containers, and programs do without them as on a
 * kernel without CONFIG_IO_URING. 32-bit calls have the same numbers.
 */
static const int rings[] = { SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register };

enum label {
	NEXT,
	L_COMPAT,
	L_SOCKET,
	L_NETLINK,
	L_IOCTL,
	L_DEVICE,
	L_FCNTL,
	L_SETSOCKOPT,
	L_SPLICE,
	L_SPLICE_BELOW,
	L_OUTPUT,
	L_RANGE,
	L_BELOW,
	L_COMPAT_IOCTL,
	L_ALLOW,
	L_NOTIFY,
	L_UNSUPPORTED,
	L_NO_FAMILY,
	L_NO_CALL,
	LABELS
};

static struct sock_filter filter[128];
static unsigned short filter_length;
static int label_at[LABELS];

static void emit(unsigned short code, uint32_t k, enum label yes, enum label no)
{
	filter[filter_length++] = (struct sock_filter){ code, yes, no, k };
}

static void load(size_t offset)
{
	emit(BPF_LD | BPF_W | BPF_ABS, offset, NEXT, NEXT);
}

/* The lower half of an argument, which is all that the kernel takes of a descriptor or a command. */
static void load_argument(int number)
{
	load(offsetof(struct seccomp_data, args[0]) + number * sizeof(uint64_t) +
	     (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0));
}

static void equal(uint32_t k, enum label yes, enum label no)
{
	emit(BPF_JMP | BPF_JEQ | BPF_K, k, yes, no);
}

static void at_least(uint32_t k, enum label yes, enum label no)
{
	emit(BPF_JMP | BPF_JGE | BPF_K, k, yes, no);
}

static void here(enum label label)
{
	label_at[label] = filter_length;
}

static void result(enum label label, uint32_t value)
{
	here(label);
	emit(BPF_RET | BPF_K, value, NEXT, NEXT);
}

static void make_filter(void)
{
	size_t i;

	filter_length = 0;
	load(offsetof(struct seccomp_data, arch));
	equal(NATIVE, NEXT, L_COMPAT);
	load(offsetof(struct seccomp_data, nr));
#ifdef X32_BIT
	at_least(X32_BIT, L_NO_CALL, NEXT);
#endif
	for (i = 0; i < sizeof ranged / sizeof *ranged; i++)
		equal(ranged[i], L_RANGE, NEXT);
	for (i = 0; i < sizeof rings / sizeof *rings; i++)
		equal(rings[i], L_NO_CALL, NEXT);
	equal(SYS_ioctl, L_IOCTL, NEXT);
	equal(SYS_splice, L_SPLICE, NEXT);
	equal(SYS_fcntl, L_FCNTL, NEXT);
	equal(SYS_setsockopt, L_SETSOCKOPT, NEXT);
	equal(SYS_socket, L_SOCKET, L_ALLOW);

	here(L_FCNTL);
	load_argument(1);
	equal(F_DUPFD, L_RANGE, NEXT);
	equal(F_DUPFD_CLOEXEC, L_RANGE, L_ALLOW);
	here(L_SETSOCKOPT);
	load_argument(1);
	equal(SOL_NETLINK, L_RANGE, L_ALLOW);
	here(L_SPLICE);
	load_argument(0);
	at_least(RANGE_FIRST, L_SPLICE_BELOW, L_OUTPUT);
	here(L_SPLICE_BELOW);
	at_least(RANGE_END, L_OUTPUT, L_NOTIFY);
	here(L_OUTPUT);
	load_argument(2);
	at_least(RANGE_FIRST, L_BELOW, L_ALLOW);

	here(L_IOCTL);
	load_argument(1);
	equal(SIOCETHTOOL, L_DEVICE, NEXT);
	equal(SIOCGIFMTU, L_DEVICE, NEXT);
	equal(SIOCSIFMTU, L_DEVICE, L_ALLOW);
	here(L_DEVICE);
	load_argument(3);
	equal(BY_LIBRARY, L_ALLOW, L_NOTIFY);

	here(L_SOCKET);
	load_argument(0);
	equal(AF_NETLINK, L_NETLINK, L_ALLOW);
	here(L_NETLINK);
	load_argument(3);
	equal(BY_LIBRARY, L_ALLOW, NEXT);
	load_argument(2);
	equal(NETLINK_ROUTE, L_NOTIFY, NEXT);
	equal(NETLINK_GENERIC, L_NOTIFY, NEXT);
	equal(NETLINK_NETFILTER, L_NOTIFY, L_ALLOW);

	/* 32-bit programs: what is not redirected does not exist for them */
	here(L_COMPAT);
	equal(COMPAT, NEXT, L_NO_CALL);
	load(offsetof(struct seccomp_data, nr));
	for (i = 0; i < sizeof rings / sizeof *rings; i++)
		equal(rings[i], L_NO_CALL, NEXT);
	equal(COMPAT_CLOSE, L_ALLOW, NEXT);
	equal(COMPAT_IOCTL, L_COMPAT_IOCTL, NEXT);
#ifdef COMPAT_SOCKETCALL
	equal(COMPAT_SOCKETCALL, L_NOTIFY, NEXT);
#endif
	equal(COMPAT_SOCKET, NEXT, L_RANGE); /* a socket of ours that the program has inherited */
	load_argument(0);
	equal(AF_NETLINK, L_NO_FAMILY, L_ALLOW);
	here(L_COMPAT_IOCTL);
	load_argument(1);
	equal(SIOCETHTOOL, L_UNSUPPORTED, NEXT);
	equal(SIOCSIFMTU, L_UNSUPPORTED, L_ALLOW);

	here(L_RANGE);
	load_argument(0);
	at_least(RANGE_FIRST, L_BELOW, L_ALLOW);
	here(L_BELOW);
	at_least(RANGE_END, L_ALLOW, L_NOTIFY);

	result(L_ALLOW, SECCOMP_RET_ALLOW);
	result(L_NOTIFY, SECCOMP_RET_USER_NOTIF);
	result(L_UNSUPPORTED, SECCOMP_RET_ERRNO | EOPNOTSUPP);
	result(L_NO_FAMILY, SECCOMP_RET_ERRNO | EAFNOSUPPORT);
	result(L_NO_CALL, SECCOMP_RET_ERRNO | ENOSYS);

	for (i = 0; i < filter_length; i++) {
		if (BPF_CLASS(filter[i].code) != BPF_JMP)
			continue;
		filter[i].jt = filter[i].jt ? label_at[filter[i].jt] - i - 1 : 0;
		filter[i].jf = filter[i].jf ? label_at[filter[i].jf] - i - 1 : 0;
	}
}

#endif
