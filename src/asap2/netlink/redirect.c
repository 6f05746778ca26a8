// SPDX-License-Identifier: Apache-2.0
/*
 * The redirect library: a program's netlink requests for emulated things go to asap2's server, all others to the kernel.
 *
 * Loaded by /etc/ld.so.preload. It interposes libc's functions that send and receive, socket(), connect(), bind(),
 * setsockopt(), ioctl() and those that open files. Over a Unix seqpacket connection, one for each thread, it asks the
 * server. redirectd.c does the same for programs that make their system calls without libc.
 */
#include "libc.h"
#include "divert.h"
#include "receive.h"
#include "procfs.h"
#include "statfs.h"
#include "groups.h"
#include "ethtool.h"

#include <sys/sendfile.h>

/* ---- send ---- */

static ssize_t divert_parts(int fd, const struct iovec *parts, size_t count, int flags, const void *address,
			    socklen_t length)
{
	size_t i, size = 0, position = 0;
	char small[8192], *data = small; /* sendmsg() may be called where malloc() may not */
	ssize_t result;

	count = skip_empty(&parts, count);
	if (count == 0)
		return ALL_NATIVE;
	if (count == 1)
		return divert(fd, parts[0].iov_base, parts[0].iov_len, flags, address, length);
	for (i = 0; i < count; i++) {
		if (parts[i].iov_len > SIZE_MAX / 2 - size)
			return ALL_NATIVE;
		size += parts[i].iov_len;
	}
	/* a header may be cut by parts, but then at least its length and type stand in the first */
	if (parts[0].iov_len >= sizeof(struct nlmsghdr) && !plausible(parts[0].iov_base, size))
		return ALL_NATIVE;
	if (netlink_protocol(fd) < 0)
		return ALL_NATIVE;
	if (size > sizeof small && !(data = malloc(size)))
		return -1;
	for (i = 0; i < count; i++) {
		memcpy(data + position, parts[i].iov_base, parts[i].iov_len);
		position += parts[i].iov_len;
	}
	result = divert(fd, data, size, flags, address, length);
	if (data != small)
		free(data);
	return result;
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t length)
{
	REAL(sendto);
	ssize_t result = divert(fd, data, size, flags, address, length);
	return result == ALL_NATIVE ? real(fd, data, size, flags, address, length) : result;
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
	REAL(send);
	ssize_t result = divert(fd, data, size, flags, NULL, 0);
	return result == ALL_NATIVE ? real(fd, data, size, flags) : result;
}

ssize_t write(int fd, const void *data, size_t size)
{
	REAL(write);
	ssize_t result = divert(fd, data, size, 0, NULL, 0);
	return result == ALL_NATIVE ? real(fd, data, size) : result;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
	REAL(writev);
	ssize_t result = count > 0 ? divert_parts(fd, parts, count, 0, NULL, 0) : ALL_NATIVE;
	return result == ALL_NATIVE ? real(fd, parts, count) : result;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	ssize_t result = divert_parts(fd, message->msg_iov, message->msg_iovlen, flags, message->msg_name,
				      message->msg_namelen);
	return result == ALL_NATIVE ? real_sendmsg(fd, message, flags) : result;
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
	REAL(sendmmsg);
	unsigned i;

	if (netlink_protocol(fd) < 0)
		return real(fd, messages, count, flags);
	for (i = 0; i < count; i++) {
		ssize_t sent = sendmsg(fd, &messages[i].msg_hdr, flags);
		if (sent < 0)
			return i ? (int)i : -1;
		messages[i].msg_len = sent;
	}
	return count;
}

/* A socket connected to the kernel would refuse the server's replies: bind it only, as connect() does besides. */
int connect(int fd, const struct sockaddr *address, socklen_t length)
{
	const struct sockaddr_nl *kernel = (const struct sockaddr_nl *)address;

	if (address && length >= sizeof *kernel && kernel->nl_family == AF_NETLINK && kernel->nl_pid == 0 &&
	    kernel->nl_groups == 0 && netlink_protocol(fd) >= 0)
		return port_of(fd) ? 0 : -1;
	return real_connect(fd, address, length);
}

/* ---- receive ---- */

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	struct sockaddr_storage sender;
	struct msghdr asked;
	ssize_t got;

	for (;; skip(fd, flags)) {
		asked = *message;
		memset(&sender, 0, sizeof sender);
		if (!asked.msg_name) {
			asked.msg_name = &sender;
			asked.msg_namelen = sizeof sender;
		}
		got = real_recvmsg(fd, &asked, flags);
		if (got > 0)
			got = received(fd, &asked, got, flags);
		if (!shows_nothing(fd, asked.msg_iov, asked.msg_iovlen, got))
			break;
	}
	if (got < 0)
		return got;
	message->msg_controllen = asked.msg_controllen;
	message->msg_flags = asked.msg_flags;
	if (message->msg_name)
		message->msg_namelen = asked.msg_namelen;
	return got;
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout)
{
	REAL(recvmmsg);
	int i, got = real(fd, messages, count, flags, timeout);
	for (i = 0; i < got; i++)
		messages[i].msg_len = received(fd, &messages[i].msg_hdr, messages[i].msg_len, flags);
	return got;
}

ssize_t recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *address, socklen_t *length)
{
	REAL(recvfrom);
	struct sockaddr_storage sender = { 0 };
	socklen_t room = sizeof sender, own_length = sizeof sender;
	struct iovec part = { data, size };
	struct msghdr message;
	ssize_t got;

	if (!address) {
		address = (struct sockaddr *)&sender;
		length = &own_length;
	} else
		room = length ? *length : 0;
	for (;; skip(fd, flags)) {
		if (length)
			*length = room;
		got = real(fd, data, size, flags, address, length);
		if (got <= 0)
			return got;
		message = (struct msghdr){ .msg_iov = &part, .msg_iovlen = 1 };
		message.msg_namelen = !room ? 0 : *length < room ? *length : room;
		message.msg_name = message.msg_namelen ? address : NULL;
		got = received(fd, &message, got, flags);
		if (!shows_nothing(fd, &part, 1, got))
			return got;
	}
}

ssize_t recv(int fd, void *data, size_t size, int flags)
{
	return recvfrom(fd, data, size, flags, NULL, NULL);
}

ssize_t read(int fd, void *data, size_t size)
{
	REAL(read);
	struct iovec part = { data, size };
	ssize_t got;

	do {
		got = real(fd, data, size);
		if (got > 0)
			got = show(fd, data, got, size);
	} while (shows_nothing(fd, &part, 1, got));
	return got;
}

ssize_t readv(int fd, const struct iovec *parts, int count)
{
	REAL(readv);
	ssize_t got;

	do {
		got = real(fd, parts, count);
		if (got > 0)
			got = show_parts(fd, parts, count, got);
	} while (shows_nothing(fd, parts, count, got));
	return got;
}

/* what programs built with _FORTIFY_SOURCE call */
ssize_t __recvfrom_chk(int fd, void *data, size_t size, size_t room, int flags, struct sockaddr *address,
		       socklen_t *length)
{
	if (size > room)
		abort();
	return recvfrom(fd, data, size, flags, address, length);
}

ssize_t __recv_chk(int fd, void *data, size_t size, size_t room, int flags)
{
	if (size > room)
		abort();
	return recv(fd, data, size, flags);
}

ssize_t __read_chk(int fd, void *data, size_t size, size_t room)
{
	if (size > room)
		abort();
	return read(fd, data, size);
}

/* ---- the rest ---- */

static int borrow(const struct place *place)
{
	return place->number;
}

static void give_back(const struct place *place, int fd)
{
	(void)place;
	(void)fd;
}

/*
 * Say to redirectd's filter, if the process has it, that what this socket sends and receives comes by here. That ends
 * with exec: a static program that inherited the socket would ask the kernel itself.
 */
int socket(int domain, int type, int protocol)
{
	REAL(socket);

	if (domain != AF_NETLINK)
		return real(domain, type, protocol);
	if (is_redirected(protocol))
		type |= SOCK_CLOEXEC;
	return (int)syscall(SYS_socket, domain, type, protocol, BY_LIBRARY);
}

/* What these move between a socket and a file or pipe nobody could redirect: refused as of files that cannot be spliced. */
#define MOVES(name, parameters, ends, ...) \
	ssize_t name parameters \
	{ \
		REAL(name); \
		if (ends) { \
			errno = EINVAL; \
			return -1; \
		} \
		return real(__VA_ARGS__); \
	}
MOVES(splice, (int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags),
      netlink_protocol(in) >= 0 || netlink_protocol(out) >= 0, in, from, out, to, size, flags)
MOVES(sendfile, (int out, int in, off_t *from, size_t size), netlink_protocol(out) >= 0, out, in, from, size)
MOVES(sendfile64, (int out, int in, off64_t *from, size_t size), netlink_protocol(out) >= 0, out, in, from, size)

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
	const struct sockaddr_nl *netlink = (const struct sockaddr_nl *)address;
	int result = real_bind(fd, address, length);

	if (result == 0 && address && length >= sizeof *netlink && netlink->nl_family == AF_NETLINK &&
	    netlink->nl_groups)
		listens(fd);
	return result;
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
	REAL(setsockopt);
	uint32_t group;
	int result;

	if (level == SOL_NETLINK && (option == NETLINK_ADD_MEMBERSHIP || option == NETLINK_DROP_MEMBERSHIP) &&
	    length >= sizeof group && value) {
		memcpy(&group, value, sizeof group);
		if (group >= GROUPS_FIRST && group <= GROUPS_LAST && netlink_protocol(fd) == NETLINK_GENERIC) {
			result = membership(fd, (struct place){ 0, fd },
					    option == NETLINK_ADD_MEMBERSHIP ? JOIN : LEAVE, group);
			if (result != ALL_NATIVE)
				return result;
		}
	}
	result = real(fd, level, option, value, length);
	if (result == 0 && level == SOL_NETLINK && option == NETLINK_ADD_MEMBERSHIP)
		listens(fd);
	return result;
}

int ioctl(int fd, unsigned long request, ...)
{
	REAL(ioctl);
	int redirected = request == SIOCETHTOOL || request == SIOCSIFMTU;
	va_list arguments;
	const struct shape *shape;
	void *argument;
	char *buffer;
	uint32_t command;
	size_t size;
	int result;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	if (request == SIOCETHTOOL && argument && (buffer = ((struct ifreq *)argument)->ifr_data)) {
		memcpy(&command, buffer, sizeof command);
		shape = shape_of(command);
		size = shape ? buffer_size(shape, buffer) : 0;
		result = size ? ethtool(fd, ((struct ifreq *)argument)->ifr_name, shape, buffer, size, &size) :
				ALL_NATIVE;
		if (result != ALL_NATIVE)
			return result;
	}
	if (request == SIOCSIFMTU && argument && set_mtu(fd, argument) != ALL_NATIVE)
		return -1;
	if (request == SIOCGIFMTU && argument)
		return get_mtu(fd, argument);
	/* the filter has nothing to look at any more */
	return redirected ? (int)syscall(SYS_ioctl, fd, request, argument, BY_LIBRARY) : real(fd, request, argument);
}
