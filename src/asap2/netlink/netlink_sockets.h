// SPDX-License-Identifier: Apache-2.0
/* A program's netlink sockets, and the messages on them. */
#ifndef ASAP2_NETLINK_SOCKETS_H
#define ASAP2_NETLINK_SOCKETS_H

#include "redirect.h"

static int has(const uint8_t *bitmap, unsigned number)
{
	return bitmap[number / 8] >> number % 8 & 1;
}

/* The next message's start, or 0 when what follows is none. */
static size_t step(const char *data, size_t size, size_t position, struct nlmsghdr *header)
{
	size_t next;

	if (size - position < sizeof *header)
		return 0;
	memcpy(header, data + position, sizeof *header);
	if (header->nlmsg_len < sizeof *header || header->nlmsg_len > size - position)
		return 0;
	next = position + NLMSG_ALIGN(header->nlmsg_len);
	return next > size ? size : next;
}

/* How much there is in all parts, or room for. */
static size_t total(const struct iovec *parts, size_t count)
{
	size_t size = 0;

	while (count--)
		size += parts++->iov_len;
	return size;
}

/* Go to the first part that is not empty; how many there are from there on. */
static size_t skip_empty(const struct iovec **parts, size_t count)
{
	for (; count && (*parts)->iov_len == 0; count--)
		++*parts;
	return count;
}

static int is_redirected(int protocol)
{
	return protocol == NETLINK_ROUTE || protocol == NETLINK_GENERIC || protocol == NETLINK_NETFILTER;
}

/* The protocol of a netlink socket; -1: it is none. */
static int any_protocol(int fd)
{
	int value = -1, saved = errno;
	socklen_t length = sizeof value;

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &length) < 0 || value != AF_NETLINK)
		value = -1;
	else {
		length = sizeof value;
		if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &value, &length) < 0)
			value = -1;
	}
	errno = saved;
	return value;
}

static int netlink_protocol(int fd)
{
	int protocol = any_protocol(fd);

	return is_redirected(protocol) ? protocol : -1;
}

static uint64_t namespace_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t length = sizeof cookie;

	return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length) == 0 ? cookie : 0;
}

/* Whether a socket is in the server's own namespace, whose connections the server has. */
static int at_home(int fd)
{
	const struct greeting *greeting = diverted();

	return greeting && namespace_of(fd) == greeting->home;
}

/* The port id of the socket, which is bound if it was not; 0 on failure. */
static uint32_t port_of(int fd)
{
	struct sockaddr_nl address = { 0 };
	socklen_t length = sizeof address;

	if (getsockname(fd, (struct sockaddr *)&address, &length) == 0 && address.nl_pid)
		return address.nl_pid;
	address = (struct sockaddr_nl){ .nl_family = AF_NETLINK, .nl_groups = address.nl_groups };
	if (real_bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
		return 0;
	length = sizeof address;
	return getsockname(fd, (struct sockaddr *)&address, &length) == 0 ? address.nl_pid : 0;
}

/* What a function gives that leaves the call to the kernel. */
enum { ALL_NATIVE = -2 };

#endif
