// SPDX-License-Identifier: Apache-2.0
/*
 * What a program receives on its netlink sockets: the server's replies look like the kernel's, and what the kernel
 * tells by itself of a device of ours (RTM_NEWLINK, RTM_DELLINK, ethtool's notifications) is shown as the NIC's.
 *
 * The kernel delivers notifications itself, so poll(), queue limits and ENOBUFS stay native; the server is given the
 * message once the program has it, and gives it back rewritten (SHOW). A message may pass here twice, peeked at and then
 * read, or answered by the server and then read by read(): the server leaves it as it is then. The other functions are
 * asked for the sender though the program does not ask: a question less of the server for each of its answers.
 */
#ifndef ASAP2_RECEIVE_H
#define ASAP2_RECEIVE_H

#include "netlink_sockets.h"
#include "uevents.h"

#define GROWTH 512 /* by how much a message may grow: parent device, port name, switch id, DEVPATH */
#define STACK_ROOM 8192 /* longer messages need malloc() */

static int from_server(const void *address, socklen_t length)
{
	const struct sockaddr_nl *sender = address;
	return sender && length >= sizeof *sender && sender->nl_family == AF_NETLINK && sender->nl_pid == SERVER_PORTID;
}

/* Whether a message that the program has received, in full, may be one that the server is to show. */
static int may_show(const void *data, size_t size)
{
	const struct nlmsghdr *header = data;

	return size >= NLMSG_LENGTH(sizeof(struct genlmsghdr)) && header->nlmsg_len >= NLMSG_LENGTH(4) &&
	       header->nlmsg_len <= size && header->nlmsg_type >= NLMSG_MIN_TYPE && header->nlmsg_type < 1024 &&
	       !(header->nlmsg_flags & (NLM_F_MULTI | NLM_F_REQUEST));
}

static int is_shown(int protocol, unsigned type, const struct greeting *greeting)
{
	if (protocol == NETLINK_ROUTE)
		return (type == RTM_NEWLINK || type == RTM_DELLINK) && has(greeting->route, RTM_GETLINK);
	return protocol == NETLINK_GENERIC && type > GENL_ID_CTRL && has(greeting->genl, type);
}

/* Have the server show the *got* bytes at *data*, where there is room for *capacity*; the new number of bytes. */
static size_t show(int fd, char *data, size_t got, size_t capacity)
{
	const struct nlmsghdr *header = (const struct nlmsghdr *)data;
	struct ask ask = { .kind = SHOW };
	const struct greeting *greeting;
	struct answer answer;
	char small[STACK_ROOM], *room = small;
	size_t length = capacity < got + GROWTH ? capacity : got + GROWTH;
	int protocol;

	if (!may_show(data, got) || got > CHUNK)
		return show_uevent(fd, data, got, capacity);
	protocol = netlink_protocol(fd);
	if (protocol < 0 || !(greeting = diverted()) || !is_shown(protocol, header->nlmsg_type, greeting))
		return got;
	if (length > sizeof small && !(room = malloc(length)))
		return got;
	ask.protocol = protocol;
	ask.cookie = namespace_of(fd);
	ask.argument = length;
	if (put(&ask, fd, data, got, &answer, room, &length) == 0 && answer.verdict == DONE && length <= capacity) {
		memcpy(data, room, length);
		got = length;
	}
	if (room != small)
		free(room);
	return got;
}

/* As show(), in parts. */
static size_t show_parts(int fd, const struct iovec *parts, size_t count, size_t got)
{
	char together[STACK_ROOM];
	size_t i, position, capacity, shown;

	count = skip_empty(&parts, count);
	if (!count)
		return got;
	if (got <= parts[0].iov_len)
		return show(fd, parts[0].iov_base, got, parts[0].iov_len);
	capacity = total(parts, count);
	if (parts[0].iov_len < sizeof(struct nlmsghdr) || got > sizeof together || got > capacity ||
	    ((const struct nlmsghdr *)parts[0].iov_base)->nlmsg_len > got)
		return got;
	for (i = position = 0; i < count && position < got; position += parts[i++].iov_len)
		memcpy(together + position, parts[i].iov_base,
		       parts[i].iov_len < got - position ? parts[i].iov_len : got - position);
	shown = show(fd, together, got, capacity < sizeof together ? capacity : sizeof together);
	for (i = position = 0; i < count && position < shown; position += parts[i++].iov_len)
		memcpy(parts[i].iov_base, together + position,
		       parts[i].iov_len < shown - position ? parts[i].iov_len : shown - position);
	return shown;
}

/* Whether all that was received is about devices that are not shown: the server leaves a message that says nothing. */
static int shows_nothing(int fd, const struct iovec *parts, size_t count, ssize_t got)
{
	const struct nlmsghdr *header;

	count = skip_empty(&parts, count);
	if (got != NLMSG_HDRLEN || !count || parts->iov_len < sizeof *header)
		return 0;
	header = parts->iov_base;
	return header->nlmsg_len == NLMSG_HDRLEN && header->nlmsg_type == NLMSG_NOOP && netlink_protocol(fd) >= 0;
}

/* A message that shows nothing: the program gets the next one. One that was only peeked at is taken out. */
static void skip(int fd, int flags)
{
	char octet;
	struct iovec part = { &octet, sizeof octet };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	if (flags & MSG_PEEK)
		real_recvmsg(fd, &message, MSG_DONTWAIT);
}

/* A program that asks how long the next message is makes a buffer of that size: which must take what it grows by. */
static ssize_t announced(int fd, ssize_t got, size_t capacity, int flags)
{
	int protocol;

	if (!(flags & MSG_PEEK) || !(flags & MSG_TRUNC) || got <= 0 || (size_t)got <= capacity)
		return got;
	protocol = any_protocol(fd);
	return is_redirected(protocol) || protocol == NETLINK_KOBJECT_UEVENT ? got + GROWTH : got;
}

static ssize_t received(int fd, struct msghdr *message, ssize_t got, int flags)
{
	struct cmsghdr *control;
	size_t capacity = total(message->msg_iov, message->msg_iovlen);

	if (!from_server(message->msg_name, message->msg_namelen)) {
		const struct sockaddr_nl *sender = message->msg_name;

		if (sender && message->msg_namelen >= sizeof sender->nl_family && sender->nl_family != AF_NETLINK)
			return got;
		if ((size_t)got > capacity || message->msg_flags & MSG_TRUNC)
			return announced(fd, got, capacity, flags);
		return show_parts(fd, message->msg_iov, message->msg_iovlen, got);
	}
	((struct sockaddr_nl *)message->msg_name)->nl_pid = 0;
	for (control = CMSG_FIRSTHDR(message); control; control = CMSG_NXTHDR(message, control))
		if (control->cmsg_level == SOL_SOCKET && control->cmsg_type == SCM_CREDENTIALS &&
		    control->cmsg_len >= CMSG_LEN(sizeof(struct ucred)))
			memset(CMSG_DATA(control), 0, sizeof(struct ucred));
	return got;
}

#endif
