// SPDX-License-Identifier: Apache-2.0
/*
 * The functions of libc that the redirect library stands in front of.
 */
#ifndef ASAP2_LIBC_H
#define ASAP2_LIBC_H

#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/socket.h>

#define REAL(name) \
	static __typeof__(&name) real; \
	if (!__atomic_load_n(&real, __ATOMIC_RELAXED)) { \
		__typeof__(&name) found = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
		__atomic_store_n(&real, found, __ATOMIC_RELAXED); \
	}

static ssize_t real_sendmsg(int fd, const struct msghdr *message, int flags)
{
	REAL(sendmsg);
	return real(fd, message, flags);
}

static ssize_t real_recvmsg(int fd, struct msghdr *message, int flags)
{
	REAL(recvmsg);
	return real(fd, message, flags);
}

static int real_connect(int fd, const struct sockaddr *address, socklen_t length)
{
	REAL(connect);
	return real(fd, address, length);
}

static int real_bind(int fd, const struct sockaddr *address, socklen_t length)
{
	REAL(bind);
	return real(fd, address, length);
}

#endif
