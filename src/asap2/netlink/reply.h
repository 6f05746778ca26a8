// SPDX-License-Identifier: Apache-2.0
/*
 * How redirectd answers a system call that it was notified of.
 */
#ifndef ASAP2_REPLY_H
#define ASAP2_REPLY_H

#include <linux/seccomp.h>
#include <sys/ioctl.h>

#include "netlink_sockets.h"

#define ROOM (1 << 20) /* the longest message that a caller may send or receive at once */
#define MOST_PARTS 1024 /* UIO_MAXIOV */
#define CONTROL_ROOM 4096
#define NOT_YET (-3) /* what a receive gives when there is no message, beside ALL_NATIVE */

static __thread char *buffer; /* ROOM octets */
static __thread int listener;

static void reply(uint64_t id, int64_t value, int error, uint32_t flags)
{
	struct seccomp_notif_resp response = { .id = id, .val = value, .error = -error, .flags = flags };

	ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
}

/* Answer as a function of libc would: the result, or -1 with errno; or ALL_NATIVE. */
static void answer(uint64_t id, int64_t result)
{
	if (result == ALL_NATIVE)
		reply(id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
	else
		reply(id, result < 0 ? 0 : result, result < 0 ? errno : 0, 0);
}

static int is_valid(uint64_t id)
{
	return ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

static int failed(int error)
{
	errno = error;
	return -1;
}

#endif
