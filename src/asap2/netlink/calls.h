// SPDX-License-Identifier: Apache-2.0
/*
 * What redirectd does for each system call that it is notified of.
 *
 * A netlink socket of the caller is a real one, which redirectd makes in the calling thread's network namespace and puts
 * into the caller at a number that the filter knows. What the caller sends, the kernel sends when it is not for the
 * server; what it receives, redirectd receives. Whatever goes wrong is an error of the call: no other way leads on.
 */
#ifndef ASAP2_CALLS_H
#define ASAP2_CALLS_H

#include "caller.h"
#include "divert.h"
#include "ethtool.h"
#include "filter.h"
#include "groups.h"
#include "calls_receive.h"

/* ---- sockets ---- */

static int home_namespace; /* of this process, as a descriptor */
static ino_t home_inode;

/* A netlink socket in the thread's network namespace. */
static int socket_for(pid_t tid, int type, int protocol)
{
	ino_t inode = namespace_inode(tid, "net");
	int there = -1, fd, saved;

	if (!inode)
		return failed(ENOBUFS);
	if (inode != home_inode && ((there = open_of(tid, "ns/net")) < 0 || setns(there, CLONE_NEWNET) < 0)) {
		if (there >= 0)
			close(there);
		return failed(ENOBUFS);
	}
	fd = socket(AF_NETLINK, type | SOCK_CLOEXEC, protocol);
	saved = errno;
	if (there >= 0) {
		close(there);
		if (setns(home_namespace, CLONE_NEWNET) < 0)
			abort(); /* another process takes over, at home */
	}
	errno = saved;
	return fd;
}

/* Put a descriptor of ours into the caller at a number, which its call returns; 0, or -1 with errno. */
static int give_at(const struct seccomp_notif *q, int fd, int number, int close_on_exec)
{
	struct seccomp_notif_addfd add = {
		.id = q->id,
		.flags = SECCOMP_ADDFD_FLAG_SETFD | SECCOMP_ADDFD_FLAG_SEND,
		.srcfd = fd,
		.newfd = number,
		.newfd_flags = close_on_exec ? O_CLOEXEC : 0,
	};
	const struct known_caller *known = process_of(q->pid, 0);
	struct rlimit limit, wider;
	int widened = 0, given;

	if (!known)
		return failed(ESRCH);
	/* the range is ours: a caller with a low limit gets its sockets there all the same */
	if (prlimit(known->process, RLIMIT_NOFILE, NULL, &limit) == 0 && limit.rlim_cur <= (rlim_t)number) {
		wider = (struct rlimit){ RANGE_END, limit.rlim_max < RANGE_END ? RANGE_END : limit.rlim_max };
		widened = prlimit(known->process, RLIMIT_NOFILE, &wider, NULL) == 0;
	}
	given = ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add);
	if (widened)
		prlimit(known->process, RLIMIT_NOFILE, &limit, NULL);
	return given < 0 ? failed(EMFILE) : 0;
}

static int in_range(uint64_t number)
{
	return (uint32_t)number >= RANGE_FIRST && (uint32_t)number < RANGE_END;
}

/* Put a descriptor of ours into the caller at the first number that is free, *least* or above. */
static int give(const struct seccomp_notif *q, int fd, int least, int close_on_exec)
{
	int number;

	for (number = least < RANGE_FIRST ? RANGE_FIRST : least; number < RANGE_END; number++)
		if (!is_open(q->pid, number))
			return give_at(q, fd, number, close_on_exec);
	return failed(EMFILE);
}

static void on_socket(const struct seccomp_notif *q)
{
	const __u64 *a = (const __u64 *)q->data.args;
	int fd = socket_for(q->pid, a[1], a[2]);

	if (fd < 0 || give(q, fd, 0, a[1] & SOCK_CLOEXEC) < 0)
		answer(q->id, -1);
	if (fd >= 0)
		close(fd);
}

/*
 * A copy of a socket of ours has to have a number in the range, too; a copy of anything else is the kernel's matter. To
 * the caller, the range is all that a process may have: a number outside is refused as one above RLIMIT_NOFILE is.
 */
static void on_copy(const struct seccomp_notif *q, int fd)
{
	const __u64 *a = (const __u64 *)q->data.args;
	int chosen = q->data.nr == SYS_dup3, close_on_exec = chosen && a[2] & O_CLOEXEC, least = 0, result;

#ifdef SYS_dup2
	chosen |= q->data.nr == SYS_dup2;
#endif
	if (q->data.nr == SYS_fcntl) {
		close_on_exec = a[1] == F_DUPFD_CLOEXEC;
		least = (int)a[2];
	}
	if (netlink_protocol(fd) < 0 || (chosen && (int)a[1] == (int)a[0]) ||
	    (q->data.nr == SYS_dup3 && a[2] & ~(__u64)O_CLOEXEC))
		result = ALL_NATIVE;
	else if (chosen)
		result = in_range(a[1]) ? give_at(q, fd, a[1], close_on_exec) : failed(EBADF);
	else if (least < 0 || least >= RANGE_END)
		result = failed(EINVAL);
	else
		result = give(q, fd, least, close_on_exec);
	if (result)
		answer(q->id, result);
}

static int64_t on_connect(const struct seccomp_notif *q, int fd)
{
	struct sockaddr_nl address;

	if (netlink_protocol(fd) < 0 || q->data.args[2] < sizeof address ||
	    get(q->pid, q->data.args[1], &address, sizeof address) < 0 || address.nl_family != AF_NETLINK ||
	    address.nl_pid || address.nl_groups)
		return ALL_NATIVE;
	return port_of(fd) ? 0 : -1; /* as the library does, and for its reason */
}

static int64_t on_bind(const struct seccomp_notif *q, int fd)
{
	struct sockaddr_nl address;

	if (netlink_protocol(fd) == NETLINK_NETFILTER && q->data.args[2] >= sizeof address &&
	    get(q->pid, q->data.args[1], &address, sizeof address) == 0 && address.nl_groups)
		listens(fd);
	return ALL_NATIVE;
}

static int64_t on_setsockopt(const struct seccomp_notif *q, int fd)
{
	const __u64 *a = (const __u64 *)q->data.args;
	const struct known_caller *known = process_of(q->pid, 0);
	int join = a[2] == NETLINK_ADD_MEMBERSHIP;
	uint32_t group;

	if ((!join && a[2] != NETLINK_DROP_MEMBERSHIP) || a[4] < sizeof group ||
	    get(q->pid, a[3], &group, sizeof group) < 0)
		return ALL_NATIVE;
	if (known && group >= GROUPS_FIRST && group <= GROUPS_LAST && netlink_protocol(fd) == NETLINK_GENERIC)
		return membership(fd, (struct place){ known->process, a[0] }, join ? JOIN : LEAVE, group);
	if (join)
		listens(fd);
	return ALL_NATIVE;
}

/* ---- send ---- */

/*
 * A message that the caller sends from its parts; as sendmsg() does, or ALL_NATIVE: never that with *here*, which has a
 * message of the kernel's sent by us.
 */
static int64_t send_parts(pid_t tid, int fd, const struct iovec *parts, size_t count, uint64_t name, size_t name_length,
			  int flags, int here)
{
	struct msghdr message = { 0 };
	int64_t result;

	struct sockaddr_nl address = { 0 };
	struct iovec ours[2] = { { buffer, total(parts, count) }, { &address, sizeof address } };
	struct iovec theirs[MOST_PARTS + 1];

	if (ours[0].iov_len > ROOM)
		return failed(EMSGSIZE);
	if (!name || name_length < sizeof address)
		ours[1].iov_len = 0;
	memcpy(theirs, parts, count * sizeof *parts);
	theirs[count] = (struct iovec){ (void *)name, ours[1].iov_len };
	if (copy_in(tid, ours, 2, theirs, count + 1) < 0)
		return failed(EFAULT);
	if (name && name_length && !ours[1].iov_len)
		return failed(EINVAL);
	message.msg_name = ours[1].iov_len ? &address : NULL;
	message.msg_namelen = ours[1].iov_len;
	result = divert(fd, buffer, ours[0].iov_len, flags, message.msg_name, message.msg_namelen);
	if (result != ALL_NATIVE || !here)
		return result;
	message.msg_iov = ours;
	message.msg_iovlen = 1;
	return sendmsg(fd, &message, flags);
}

static int64_t send_header(pid_t tid, int fd, const struct msghdr *header, int flags, int here)
{
	struct iovec parts[MOST_PARTS];

	if (get_parts(tid, parts, (uint64_t)header->msg_iov, header->msg_iovlen) < 0)
		return -1;
	return send_parts(tid, fd, parts, header->msg_iovlen, (uint64_t)header->msg_name, header->msg_namelen, flags,
			  here);
}

static int64_t send_several(pid_t tid, int fd, uint64_t at, int count, int flags)
{
	struct mmsghdr message;
	unsigned length;
	int sent;
	int64_t result;

	if (count > MOST_PARTS || count < 0)
		count = MOST_PARTS;
	for (sent = 0; sent < count; sent++) {
		uint64_t place = at + sent * sizeof message;

		if (get(tid, place, &message, sizeof message) < 0)
			return sent ? sent : failed(EFAULT);
		result = send_header(tid, fd, &message.msg_hdr, flags, 1);
		if (result < 0)
			return sent ? sent : -1;
		length = result;
		if (set(tid, place + offsetof(struct mmsghdr, msg_len), &length, sizeof length) < 0)
			return sent ? sent : failed(EFAULT);
	}
	return sent;
}

static int64_t on_send(const struct seccomp_notif *q, int fd)
{
	const __u64 *a = (const __u64 *)q->data.args;
	struct iovec parts[MOST_PARTS] = { { (void *)a[1], a[2] } };
	struct msghdr header;

	if (netlink_protocol(fd) < 0)
		return ALL_NATIVE;
	switch (q->data.nr) {
	case SYS_sendto:
		return send_parts(q->pid, fd, parts, 1, a[4], a[5], a[3], 0);
	case SYS_write:
		return send_parts(q->pid, fd, parts, 1, 0, 0, 0, 0);
	case SYS_writev:
		return get_parts(q->pid, parts, a[1], a[2]) < 0 ? -1 : send_parts(q->pid, fd, parts, a[2], 0, 0, 0, 0);
	case SYS_sendmsg:
		return get(q->pid, a[1], &header, sizeof header) < 0 ? failed(EFAULT) :
								       send_header(q->pid, fd, &header, a[2], 0);
	default:
		return send_several(q->pid, fd, a[1], a[2], a[3]);
	}
}

/* ---- ioctl ---- */

static int64_t on_ethtool(const struct seccomp_notif *q, int fd, const struct ifreq *request)
{
	uint64_t at = (uint64_t)request->ifr_data;
	const struct shape *shape;
	size_t size, filled = 0;
	uint32_t command;
	int64_t result;

	if (get(q->pid, at, &command, sizeof command) < 0 || !(shape = shape_of(command)))
		return ALL_NATIVE;
	memset(buffer, 0, shape->base);
	if (get(q->pid, at, buffer, shape->base) < 0)
		return failed(EFAULT);
	size = buffer_size(shape, buffer);
	if (!size || size > ROOM)
		return ALL_NATIVE;
	if (shape->sets && get(q->pid, at, buffer, size) < 0)
		return failed(EFAULT);
	result = ethtool(fd, request->ifr_name, shape, buffer, size, &filled);
	return result == 0 && set(q->pid, at, buffer, filled) < 0 ? failed(EFAULT) : result;
}

static int64_t on_ioctl(const struct seccomp_notif *q, int fd)
{
	struct ifreq request;

	if (get(q->pid, q->data.args[2], &request, sizeof request) < 0)
		return ALL_NATIVE;
	if ((uint32_t)q->data.args[1] == SIOCETHTOOL)
		return on_ethtool(q, fd, &request);
	if ((uint32_t)q->data.args[1] == SIOCSIFMTU)
		return set_mtu(fd, &request);
	if (get_mtu(fd, &request) < 0)
		return -1;
	return set(q->pid, q->data.args[2], &request, sizeof request) < 0 ? failed(EFAULT) : 0;
}

/* ---- all ---- */

static int is_receive(int number)
{
	return number == SYS_recvmsg || number == SYS_recvfrom || number == SYS_recvmmsg || number == SYS_read ||
	       number == SYS_readv;
}

static int is_copy(int number)
{
#ifdef SYS_dup2
	if (number == SYS_dup2)
		return 1;
#endif
	return number == SYS_dup || number == SYS_dup3 || number == SYS_fcntl;
}

static int is_ours(pid_t tid, uint64_t number)
{
	int fd = in_range(number) ? take(tid, number) : -1, ours = fd >= 0 && netlink_protocol(fd) >= 0;

	if (fd >= 0)
		close(fd);
	return ours;
}

/* A 32-bit program gets no socket that would have to be redirected, and cannot use one that it has inherited. */
static int64_t on_compat(const struct seccomp_notif *q)
{
	uint32_t first = q->data.args[0];

#ifdef COMPAT_SOCKETCALL
	if (q->data.nr == COMPAT_SOCKETCALL) {
		int opens = first == SYS_SOCKET;

		if (get(q->pid, (uint32_t)q->data.args[1], &first, sizeof first) < 0)
			return failed(EFAULT);
		if (opens)
			return first == AF_NETLINK ? failed(EAFNOSUPPORT) : ALL_NATIVE;
	}
#endif
	return is_ours(q->pid, first) ? failed(EBADF) : ALL_NATIVE;
}

/* Neither end of splice(2) may be a socket of ours: its data would go by nobody who redirects. */
static int64_t on_splice(const struct seccomp_notif *q)
{
	return is_ours(q->pid, q->data.args[0]) || is_ours(q->pid, q->data.args[2]) ? failed(EINVAL) : ALL_NATIVE;
}

/*
 * Handle a call and answer it. A receive for which there is no message is not answered: its socket is returned, a
 * descriptor of ours; -1 otherwise.
 */
static int handle(const struct seccomp_notif *q)
{
	int64_t result;
	int fd;

	if (q->data.arch != NATIVE) {
		answer(q->id, on_compat(q));
		return -1;
	}
	if (q->data.nr == SYS_splice) {
		answer(q->id, on_splice(q));
		return -1;
	}
	if (q->data.nr == SYS_socket) {
		on_socket(q);
		return -1;
	}
	fd = take(q->pid, q->data.args[0]);
	if (fd < 0) {
		answer(q->id, -1);
		return -1;
	}
	if (!is_valid(q->id)) { /* the thread that we looked at is perhaps another by now */
		close(fd);
		return -1;
	}
	if (is_copy(q->data.nr)) {
		on_copy(q, fd);
		close(fd);
		return -1;
	}
	if (is_receive(q->data.nr)) {
		result = on_receive(q, fd);
		if (result == NOT_YET)
			return fd;
		answer(q->id, result);
		close(fd);
		return -1;
	}
	speak_for(q->pid, fd);
	switch (q->data.nr) {
	case SYS_connect:
		result = on_connect(q, fd);
		break;
	case SYS_bind:
		result = on_bind(q, fd);
		break;
	case SYS_setsockopt:
		result = on_setsockopt(q, fd);
		break;
	case SYS_ioctl:
		result = on_ioctl(q, fd);
		break;
	case SYS_sendfile:
		result = netlink_protocol(fd) < 0 ? ALL_NATIVE :
						    failed(EINVAL); /* as where no data can be spliced to */
		break;
	case SYS_preadv2:
	case SYS_pwritev2:
		result = netlink_protocol(fd) < 0 ? ALL_NATIVE : failed(EOPNOTSUPP);
		break;
	default:
		result = on_send(q, fd);
	}
	speak_for_self();
	answer(q->id, result);
	close(fd);
	return -1;
}

#endif
