// SPDX-License-Identifier: Apache-2.0
/*
 * What a caller of redirectd receives on its netlink sockets: redirectd receives it and shows it as the library does.
 */
#ifndef ASAP2_CALLS_RECEIVE_H
#define ASAP2_CALLS_RECEIVE_H

#include "caller.h"
#include "receive.h"
#include "reply.h"

static int get_parts(pid_t tid, struct iovec *parts, uint64_t at, size_t count)
{
	if (count > MOST_PARTS)
		return failed(EMSGSIZE);
	return get(tid, at, parts, count * sizeof *parts) < 0 ? failed(EFAULT) : 0;
}

/* Where a received message goes in the caller. */
struct destination {
	struct iovec parts[MOST_PARTS];
	size_t count;
	uint64_t name, name_length; /* addresses; of a message header, which has its own length, 0 */
	uint64_t header; /* address of the struct msghdr, or 0 */
	struct msghdr given;
};

static int header_destination(pid_t tid, struct destination *to, uint64_t at)
{
	memset(&to->name, 0, sizeof to->name + sizeof to->name_length);
	to->header = at;
	if (get(tid, at, &to->given, sizeof to->given) < 0)
		return failed(EFAULT);
	to->count = to->given.msg_iovlen;
	to->name = (uint64_t)to->given.msg_name;
	return get_parts(tid, to->parts, (uint64_t)to->given.msg_iov, to->count);
}

/* Receive one message; as recvmsg() does, or NOT_YET. */
static int64_t receive_one(pid_t tid, int fd, struct destination *to, int flags)
{
	struct sockaddr_nl sender = { 0 };
	char control[CONTROL_ROOM];
	struct iovec room = { buffer, total(to->parts, to->count) }, ours[4], theirs[MOST_PARTS + 3];
	struct msghdr message;
	socklen_t name_room = 0, name_length;
	size_t count = 0, size;
	ssize_t got;

	if (room.iov_len > ROOM)
		room.iov_len = ROOM;
	if (to->name && !to->header && get(tid, to->name_length, &name_room, sizeof name_room) < 0)
		return failed(EFAULT);
	for (;; skip(fd, flags)) {
		message = (struct msghdr){ &sender, sizeof sender, &room, 1, NULL, 0, 0 };
		if (to->header && to->given.msg_control) {
			message.msg_control = control;
			message.msg_controllen = to->given.msg_controllen < sizeof control ? to->given.msg_controllen :
											     sizeof control;
		}
		got = recvmsg(fd, &message, flags | MSG_DONTWAIT);
		if (got < 0)
			return errno == EAGAIN && !(flags & MSG_DONTWAIT) && !(fcntl(fd, F_GETFL) & O_NONBLOCK) ?
				       NOT_YET :
				       -1;
		name_length = message.msg_namelen;
		if (got)
			got = received(fd, &message, got, flags);
		if (!shows_nothing(fd, &room, 1, got))
			break;
	}

	size = (size_t)got < room.iov_len ? (size_t)got : room.iov_len;
	ours[0] = (struct iovec){ buffer, size };
	for (count = 0; count < to->count && size; size -= theirs[count++].iov_len) {
		theirs[count] = to->parts[count];
		if (theirs[count].iov_len > size)
			theirs[count].iov_len = size;
	}
	if (to->header)
		name_room = to->given.msg_namelen;
	if (name_room > name_length)
		name_room = name_length;
	ours[1] = (struct iovec){ &sender, to->name ? name_room : 0 };
	theirs[count++] = (struct iovec){ (void *)to->name, ours[1].iov_len };
	ours[2] = (struct iovec){ control, message.msg_control ? message.msg_controllen : 0 };
	theirs[count++] = (struct iovec){ to->given.msg_control, ours[2].iov_len };
	if (to->header) {
		if (to->name)
			to->given.msg_namelen = name_length;
		to->given.msg_controllen = message.msg_controllen;
		to->given.msg_flags = message.msg_flags;
		ours[3] = (struct iovec){ &to->given, sizeof to->given };
	} else
		ours[3] = (struct iovec){ &name_length, to->name ? sizeof name_length : 0 };
	theirs[count++] = (struct iovec){ (void *)(to->header ? to->header : to->name_length), ours[3].iov_len };
	return copy_out(tid, ours, 4, theirs, count) < 0 ? failed(EFAULT) : got;
}

/* As many messages as there are; one at least. */
static int64_t receive_several(pid_t tid, int fd, struct destination *to, uint64_t at, int count, int flags)
{
	int got;

	for (got = 0; got < count; got++) {
		uint64_t place = at + got * sizeof(struct mmsghdr);
		int64_t length;
		unsigned value;

		if (header_destination(tid, to, place) < 0 || (length = receive_one(tid, fd, to, flags)) == -1)
			return got ? got : -1;
		if (length == NOT_YET)
			return got ? got : NOT_YET;
		value = length;
		if (set(tid, place + offsetof(struct mmsghdr, msg_len), &value, sizeof value) < 0)
			return failed(EFAULT);
	}
	return got;
}

static int64_t on_receive(const struct seccomp_notif *q, int fd)
{
	static __thread struct destination to;
	const __u64 *a = (const __u64 *)q->data.args;

	if (netlink_protocol(fd) < 0)
		return ALL_NATIVE;
	if (q->data.nr == SYS_recvmmsg)
		return receive_several(q->pid, fd, &to, a[1], a[2] > MOST_PARTS ? MOST_PARTS : a[2],
				       a[3] & ~(__u64)MSG_WAITFORONE);
	if (q->data.nr == SYS_recvmsg)
		return header_destination(q->pid, &to, a[1]) < 0 ? -1 : receive_one(q->pid, fd, &to, a[2]);
	memset(&to.given, 0, sizeof to.given);
	to.header = to.name = to.name_length = 0;
	to.parts[0] = (struct iovec){ (void *)a[1], a[2] };
	to.count = 1;
	if (q->data.nr == SYS_readv) {
		to.count = a[2];
		if (get_parts(q->pid, to.parts, a[1], to.count) < 0)
			return -1;
	}
	if (q->data.nr != SYS_recvfrom)
		return receive_one(q->pid, fd, &to, 0);
	to.name = a[4];
	to.name_length = a[5];
	return receive_one(q->pid, fd, &to, a[3]);
}

#endif
