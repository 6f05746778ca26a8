// SPDX-License-Identifier: Apache-2.0
/*
 * Which of a program's netlink requests are the server's, and what is done with those: a diverted request goes, whole, to
 * the server, which queues every reply in the program's own netlink socket before it says so here. Thus, as with the
 * kernel, replies are there when send() returns. While there is no server, what it might have to answer waits for the
 * next for a while, and is refused then: the kernel, which knows our devices as something else, never gets it.
 */
#ifndef ASAP2_DIVERT_H
#define ASAP2_DIVERT_H

#include "netlink_sockets.h"

/* ---- which messages ---- */

/* Types that may be diverted at all, to tell at a glance: generic netlink families, links and TC, connection tracking. */
static int plausible(const void *data, size_t size)
{
	const struct nlmsghdr *header = data;
	unsigned type;

	if (size < sizeof *header || header->nlmsg_len < sizeof *header || header->nlmsg_len > size)
		return 0;
	type = header->nlmsg_type;
	return type >= NLMSG_MIN_TYPE && (type < 1024 || NFNL_SUBSYS_ID(type) == NFNL_SUBSYS_CTNETLINK_TIMEOUT ||
					  (type >= EMULATED_FIRST && type <= EMULATED_LAST));
}

static int may_divert(int protocol, unsigned type)
{
	unsigned subsystem = NFNL_SUBSYS_ID(type);

	if (protocol == NETLINK_GENERIC)
		return 1;
	if (protocol == NETLINK_NETFILTER)
		return subsystem == NFNL_SUBSYS_CTNETLINK || subsystem == NFNL_SUBSYS_CTNETLINK_EXP ||
		       subsystem == NFNL_SUBSYS_CTNETLINK_TIMEOUT;
	return (type >= RTM_NEWLINK && type <= RTM_SETLINK) || (type >= RTM_NEWQDISC && type <= RTM_GETACTION) ||
	       type == RTM_GETSTATS || type == RTM_GETNSID || (type >= RTM_NEWCHAIN && type <= RTM_GETCHAIN);
}

/* Connections are those of the server's own namespace; elsewhere the kernel has its own. */
static int is_diverted(int fd, int protocol, unsigned type, const struct greeting *greeting)
{
	if (!greeting) /* the server says what is not its own */
		return may_divert(protocol, type);
	if (protocol == NETLINK_ROUTE)
		return type < 256 && has(greeting->route, type);
	if (protocol == NETLINK_NETFILTER)
		return has(greeting->netfilter, NFNL_SUBSYS_ID(type)) && namespace_of(fd) == greeting->home;
	if (type >= EMULATED_FIRST && type <= EMULATED_LAST)
		return 1;
	return type == GENL_ID_CTRL || (type < 1024 && has(greeting->genl, type));
}

/* ---- requests ---- */

static int netlink_flag(int fd, int option)
{
	int value = 0;
	socklen_t length = sizeof value;

	return getsockopt(fd, SOL_NETLINK, option, &value, &length) == 0 && value;
}

static int to_kernel(int fd, const struct sockaddr_nl *address, socklen_t length)
{
	struct sockaddr_nl peer;
	socklen_t size = sizeof peer;

	if (address && length >= sizeof *address)
		return address->nl_family == AF_NETLINK && address->nl_pid == 0 && address->nl_groups == 0;
	if (address && length)
		return 0;
	if (getpeername(fd, (struct sockaddr *)&peer, &size) < 0)
		return 1;
	return peer.nl_pid == 0 && peer.nl_groups == 0;
}

/*
 * There is no server: have the kernel refuse each request of a batch, so that the error comes where programs look for it
 * (ethtool does not look at what send() gives). The kernel does not get the request, but one with its sequence number
 * for a link (ENODEV), a command (EOPNOTSUPP) or a message (EINVAL) that cannot be. Returns as send() does.
 */
static ssize_t refuse(int fd, int protocol, const char *data, size_t position, size_t size, int flags)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	struct nlmsghdr header;
	size_t next;

	for (; (next = step(data, size, position, &header)); position = next) {
		struct {
			struct nlmsghdr header;
			union {
				struct ifinfomsg link;
				struct genlmsghdr command;
				struct nfgenmsg connection;
			};
		} request = { .header = header };
		struct iovec part = { &request, sizeof request };
		struct msghdr message = {
			.msg_name = &kernel, .msg_namelen = sizeof kernel, .msg_iov = &part, .msg_iovlen = 1
		};

		request.header.nlmsg_flags &= NLM_F_REQUEST;
		if (protocol == NETLINK_ROUTE) {
			request.header.nlmsg_type = RTM_GETLINK;
			request.link.ifi_index = INT32_MAX;
			part.iov_len = NLMSG_LENGTH(sizeof request.link);
		} else if (protocol == NETLINK_NETFILTER) {
			request.header.nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | UINT8_MAX;
			part.iov_len = NLMSG_LENGTH(sizeof request.connection);
		} else {
			request.header.nlmsg_type = GENL_ID_CTRL;
			request.command.cmd = UINT8_MAX;
			request.command.version = 1;
			part.iov_len = NLMSG_LENGTH(sizeof request.command);
		}
		request.header.nlmsg_len = part.iov_len;
		if (real_sendmsg(fd, &message, flags) < 0)
			return -1;
	}
	return size;
}

/* Have the server answer what is its own of a batch, the kernel the rest. Returns as send() does, or ALL_NATIVE. */
static ssize_t submit(int fd, int protocol, const char *data, size_t size, int flags)
{
	struct ask ask = { .kind = SUBMIT, .protocol = protocol };
	const struct greeting *greeting = NULL;
	struct nlmsghdr header;
	struct answer answer;
	size_t position, next;
	int wanted = 0, dumps = 0, retried = 0, result;

	for (position = 0; !wanted && (next = step(data, size, position, &header)); position = next)
		wanted = may_divert(protocol, header.nlmsg_type);
	if (!wanted)
		return ALL_NATIVE;
	greeting = diverted();
	wanted = 0;
	for (position = 0; (next = step(data, size, position, &header)); position = next) {
		wanted |= is_diverted(fd, protocol, header.nlmsg_type, greeting);
		dumps |= (header.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
	}
	if (!wanted)
		return ALL_NATIVE;
	if (!(ask.portid = port_of(fd)))
		return -1;
	ask.cookie = namespace_of(fd);
	ask.options = (netlink_flag(fd, NETLINK_EXT_ACK) ? OPTION_EXT_ACK : 0) |
		      (netlink_flag(fd, NETLINK_CAP_ACK) ? OPTION_CAP_ACK : 0) |
		      (netlink_flag(fd, NETLINK_GET_STRICT_CHK) ? OPTION_STRICT : 0);

	for (position = 0; position < size;) {
		size_t end = size;

		if (size - position > CHUNK) {
			end = position;
			while (end - position < CHUNK && (next = step(data, size, end, &header)))
				end = next;
			if (end == position)
				break;
		}
		result = put(&ask, fd, data + position, end - position, &answer, NULL, NULL);
		/* most likely the server died before it read this; the next does it, or says that it has been done */
		if (result == -2 && !dumps && !retried++)
			continue;
		if (result < 0 || answer.verdict == ERROR)
			return refuse(fd, protocol, data, position, size, flags);
		if (answer.verdict & WAITING) {
			struct ask claim = {
				.kind = CLAIM, .protocol = protocol, .portid = ask.portid, .cookie = ask.cookie
			};
			struct answer ignored;

			claim.options = OPTION_FD;
			put(&claim, fd, NULL, 0, &ignored, NULL, NULL);
			answer.verdict &= ~WAITING;
		}
		if (answer.verdict == PASS) {
			struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
			struct iovec part;
			struct msghdr message = {
				.msg_name = &kernel, .msg_namelen = sizeof kernel, .msg_iov = &part, .msg_iovlen = 1
			};

			if (answer.consumed > end - position || answer.pass > end - position - answer.consumed ||
			    answer.consumed + answer.pass == 0) {
				errno = EPROTO;
				return -1;
			}
			position += answer.consumed;
			if (position == 0 && answer.pass == size)
				return ALL_NATIVE;
			part.iov_base = (void *)(data + position);
			part.iov_len = answer.pass;
			if (real_sendmsg(fd, &message, flags) < 0)
				return -1;
			position += answer.pass;
		} else if (answer.verdict == DONE) {
			position = end;
		} else {
			errno = EPROTO;
			return -1;
		}
	}
	return size;
}

static ssize_t divert(int fd, const void *data, size_t size, int flags, const void *address, socklen_t length)
{
	int protocol;

	if (!plausible(data, size))
		return ALL_NATIVE;
	protocol = netlink_protocol(fd);
	if (protocol < 0 || !to_kernel(fd, address, length))
		return ALL_NATIVE;
	return submit(fd, protocol, data, size, flags);
}

#endif
