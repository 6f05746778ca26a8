// SPDX-License-Identifier: Apache-2.0
/*
 * The redirect library's connection to the server, and the messages on it.
 *
 * The messages are the structures below, in host byte order; sidechannel.py has them too. The server greets; then the
 * library asks, one question at a time, and the server answers each.
 */
#ifndef ASAP2_REDIRECT_H
#define ASAP2_REDIRECT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/genetlink.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

#define SOCKET_PATH "/run/asap2/netlink.sock"
#define SOCKET_PATH_VARIABLE "ASAP2_NETLINK_SOCK"
#define SERVER_PORTID 0x41534132u /* above PID_MAX_LIMIT, and outside of what the kernel's autobind picks */
#define MAGIC 0x32505341u
#define VERSION 2
#define EMULATED_FIRST 0x7000 /* generic netlink families: above GENL_MAX_ID */
#define EMULATED_LAST 0x70ff
#define GROUPS_FIRST 0x7000 /* their multicast groups */
#define GROUPS_LAST 0x7fff
#define CHUNK 65536 /* a longer batch is submitted in parts of whole messages */
#ifndef SPIN
#define SPIN 200000 /* ns that an answer is looked for before its thread sleeps */
#endif
#define PAUSES 60 /* between two looks: who answers may have the same core's other half, and the same socket's lock */
#define LOWEST_FD 800 /* where our connections live, out of the way of programs that count on low numbers */
#define ABSENT_MS 10000 /* how long we try again while nobody listens: a supervisor may be starting */
#define ABSENT_VARIABLE "ASAP2_NETLINK_WAIT" /* another number of milliseconds */
#define AGAIN_MS 30000 /* how long we do not wait again after that */
#define TRY_MS 20 /* between two tries */
#define BY_LIBRARY \
	0x41534150 /* a fourth argument of socket() and ioctl(): the kernel ignores it, redirectd's filter does not */
#define GREETING_S 120 /* how long we wait for the greeting while somebody listens: a daemon may be starting */

struct greeting {
	uint32_t magic;
	uint32_t version;
	uint64_t instance; /* changes when the server is restarted */
	uint64_t home; /* cookie of the server's network namespace */
	uint8_t route[32]; /* bitmaps of what is diverted: rtnetlink types, family ids, ethtool ioctl commands, */
	uint8_t genl[128];
	uint8_t ethtool[32];
	uint8_t netfilter[32]; /* and subsystems of nfnetlink */
};

enum kind { SUBMIT = 1, JOIN = 2, LEAVE = 3, ETHTOOL = 4, CLAIM = 5, SHOW = 6, CALLER = 7 };
enum option { OPTION_EXT_ACK = 1, OPTION_CAP_ACK = 2, OPTION_STRICT = 4, OPTION_FD = 8 };

struct ask {
	uint32_t kind;
	uint32_t tag;
	uint32_t protocol;
	uint32_t portid;
	uint64_t cookie;
	uint32_t options;
	uint32_t
		argument; /* JOIN, LEAVE: the group, and the socket's inode follows; ETHTOOL: the command; SHOW: the room */
};

/*
 * CALLER, which has no answer: what this connection asks from now on it asks for another process, *portid* of user
 * *argument*; *options*: 1 when that may administer networks. Only the privileged may say so.
 */

/* WAITING is a bit beside the others: replies wait for room in the socket, which the server wants (CLAIM) to go on. */
enum verdict { DONE = 0, PASS = 1, NEED_FD = 2, ERROR = 3, WAITING = 0x100 };

struct answer {
	uint32_t tag;
	uint32_t verdict;
	uint32_t consumed; /* PASS: bytes answered by the server; ERROR: errno */
	uint32_t pass; /* PASS: bytes after them that are the kernel's */
};

/* A thread's connection. The inode tells whether the descriptor is still ours: programs close all they see. */
static __thread struct connection {
	int fd; /* plus one, so that zero is none */
	ino_t inode;
	pid_t process;
	uint32_t tag;
	int busy;
	struct ask told; /* the last CALLER */
	struct greeting greeting;
} own;

/* For whom this thread asks: a CALLER; kind 0: for its own process. */
static __thread struct ask caller;

static pthread_key_t cleanup_key;
static pthread_once_t cleanup_once = PTHREAD_ONCE_INIT;

/* The functions of libc, which the library stands in front of. */
static ssize_t real_sendmsg(int fd, const struct msghdr *message, int flags);
static ssize_t real_recvmsg(int fd, struct msghdr *message, int flags);
static int real_connect(int fd, const struct sockaddr *address, socklen_t length);
static int real_bind(int fd, const struct sockaddr *address, socklen_t length);

static ino_t inode_of(int fd)
{
	struct stat status;
	return fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode) ? status.st_ino : 0;
}

/* ---- the connection ---- */

static void drop(struct connection *c)
{
	if (c->fd && inode_of(c->fd - 1) == c->inode)
		close(c->fd - 1);
	c->fd = 0;
}

static void thread_ends(void *connection)
{
	drop(connection);
}

static void make_cleanup_key(void)
{
	pthread_key_create(&cleanup_key, thread_ends);
}

static void rejoin(struct connection *c);

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Connect once and read the greeting; 0 or -1. */
static int try_connection(struct connection *c, const struct sockaddr_un *address)
{
	struct iovec part = { &c->greeting, sizeof c->greeting };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	struct timeval limit = { .tv_sec = GREETING_S }, none = { 0 };
	ssize_t got;
	int fd, high;

	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	high = fcntl(fd, F_DUPFD_CLOEXEC, LOWEST_FD);
	if (high >= 0) {
		close(fd);
		fd = high;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){ 1 << 20 }, sizeof(int));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	while ((got = real_connect(fd, (const struct sockaddr *)address, sizeof *address)) < 0 && errno == EINTR)
		;
	if (got < 0)
		goto fail;
	while ((got = real_recvmsg(fd, &message, 0)) < 0 && errno == EINTR)
		;
	if (got != sizeof c->greeting || c->greeting.magic != MAGIC || c->greeting.version != VERSION) {
		errno = EPROTO;
		goto fail;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
	c->inode = inode_of(fd);
	c->process = getpid();
	c->fd = fd + 1;
	return 0;
fail:
	close(fd);
	return -1;
}

/*
 * Connect and read the greeting; 0, or -1 when there is no server. While somebody keeps the listening socket, we wait in
 * its queue for the next server; when nobody does, we try for a while: somebody may be about to. Whoever removes the
 * socket says that nobody will; and who may not reach it, as a user to whom a directory above it is closed, never will.
 */
static int open_connection(struct connection *c)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *path = secure_getenv(SOCKET_PATH_VARIABLE);
	const char *patience = secure_getenv(ABSENT_VARIABLE);
	static int64_t given_up; /* when; who has waited once does not wait for each request */
	int64_t give_up = now_ms(), last = __atomic_load_n(&given_up, __ATOMIC_RELAXED);

	if (!last || give_up - last > AGAIN_MS)
		give_up += patience ? atoi(patience) : ABSENT_MS;

	if (!path || !*path)
		path = SOCKET_PATH;
	if (strlen(path) >= sizeof address.sun_path)
		return -1;
	strcpy(address.sun_path, path);
	memset(&c->greeting, 0, sizeof c->greeting);
	memset(&c->told, 0, sizeof c->told);
	while (try_connection(c, &address) < 0) {
		if (errno == ENOENT || errno == EACCES || now_ms() >= give_up) {
			__atomic_store_n(&given_up, now_ms(), __ATOMIC_RELAXED);
			return -1;
		}
		nanosleep(&(struct timespec){ .tv_nsec = TRY_MS * 1000000L }, NULL);
	}
	pthread_once(&cleanup_once, make_cleanup_key);
	if (c == &own)
		pthread_setspecific(cleanup_key, c);
	rejoin(c);
	return 0;
}

/* Make sure of a connection that is this thread's and this process's own. */
static int ensure(struct connection *c)
{
	if (c->fd) {
		if (c->process == getpid() && inode_of(c->fd - 1) == c->inode)
			return 0;
		drop(c);
	}
	return open_connection(c);
}

static inline void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#else
	__asm__ volatile("" ::: "memory");
#endif
}

/*
 * recvmsg() that looks for SPIN before it sleeps: an answer takes less than going to sleep and being woken. Who answers
 * needs a CPU meanwhile.
 */
static ssize_t receive(int fd, struct msghdr *message)
{
	static int cpus;
	struct timespec now, end;
	ssize_t got;

	if (!cpus)
		cpus = sysconf(_SC_NPROCESSORS_ONLN);
	if (cpus < 2)
		return real_recvmsg(fd, message, 0);
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_nsec += SPIN;
	do {
		got = real_recvmsg(fd, message, MSG_DONTWAIT);
		if (got >= 0 || (errno != EAGAIN && errno != EINTR))
			return got;
		for (int i = 0; i < PAUSES; i++)
			pause_cpu();
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_nsec + (now.tv_sec - end.tv_sec) * 1000000000L < end.tv_nsec);
	return real_recvmsg(fd, message, 0);
}

/* Tell the server for whom the next questions are, if it does not know; 0, or -1 when it is gone. */
static int tell_caller(struct connection *c)
{
	if (!memcmp(&c->told, &caller, sizeof caller))
		return 0;
	if (real_sendmsg(c->fd - 1,
			 &(struct msghdr){ .msg_iov = &(struct iovec){ &caller, sizeof caller }, .msg_iovlen = 1 },
			 MSG_NOSIGNAL) < 0)
		return -1;
	c->told = caller;
	return 0;
}

/*
 * One question and its answer. Answer data beyond the structure goes to *data (capacity *length, which is updated).
 * Returns 0; -1 when there is no server and nothing was asked; -2 when the server went away before it answered.
 */
static int ask_on(struct connection *c, struct ask *ask, int passed_fd, const void *payload, size_t size,
		  struct answer *answer, void *data, size_t *length)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec out[2] = { { ask, sizeof *ask }, { (void *)payload, size } };
	struct iovec in[2] = { { answer, sizeof *answer }, { data, length ? *length : 0 } };
	struct msghdr message;
	ssize_t got;
	int attempt;

	for (attempt = 0; attempt < 2; attempt++) {
		if (ensure(c) < 0)
			return -1;
		if (tell_caller(c) < 0) {
			drop(c);
			continue;
		}
		ask->tag = ++c->tag;
		memset(&message, 0, sizeof message);
		message.msg_iov = out;
		message.msg_iovlen = 2;
		/* elsewhere than at the server's home the server needs the socket, to find the namespace */
		if (passed_fd >= 0 && (ask->options & OPTION_FD || !ask->cookie || ask->cookie != c->greeting.home)) {
			ask->options |= OPTION_FD;
			message.msg_control = control.space;
			message.msg_controllen = sizeof control.space;
			control.align.cmsg_level = SOL_SOCKET;
			control.align.cmsg_type = SCM_RIGHTS;
			control.align.cmsg_len = CMSG_LEN(sizeof(int));
			memcpy(CMSG_DATA(&control.align), &passed_fd, sizeof(int));
		}
		while ((got = real_sendmsg(c->fd - 1, &message, MSG_NOSIGNAL)) < 0 && errno == EINTR)
			;
		if (got < 0) {
			drop(c); /* the server is gone, or a new one has its place */
			continue;
		}
		for (;;) {
			memset(&message, 0, sizeof message);
			message.msg_iov = in;
			message.msg_iovlen = 2;
			got = receive(c->fd - 1, &message);
			if (got < 0 && errno == EINTR)
				continue;
			if (got < (ssize_t)sizeof *answer) {
				drop(c);
				return -2;
			}
			if (answer->tag != ask->tag)
				continue;
			if (length)
				*length = got - sizeof *answer;
			if (answer->verdict == NEED_FD && passed_fd >= 0 && !(ask->options & OPTION_FD)) {
				ask->options |= OPTION_FD;
				attempt = 0;
				break;
			}
			return 0;
		}
	}
	return -1;
}

/* As ask_on(), on the thread's connection; on one of its own for a signal handler that interrupts that. */
static int put(struct ask *ask, int passed_fd, const void *payload, size_t size, struct answer *answer, void *data,
	       size_t *length)
{
	int result, saved = errno;

	if (own.busy) {
		struct connection other = { 0 };
		result = ask_on(&other, ask, passed_fd, payload, size, answer, data, length);
		drop(&other);
	} else {
		own.busy = 1;
		result = ask_on(&own, ask, passed_fd, payload, size, answer, data, length);
		own.busy = 0;
	}
	errno = saved;
	return result;
}

/* What the server diverts: NULL when that is not known. */
static const struct greeting *diverted(void)
{
	int saved = errno, result = 0;

	if (own.busy) /* we are in a signal handler, perhaps before the greeting came */
		return own.greeting.magic == MAGIC ? &own.greeting : NULL;
	if (!own.fd || own.process != getpid()) {
		own.busy = 1;
		result = ensure(&own);
		own.busy = 0;
	}
	errno = saved;
	return result < 0 ? NULL : &own.greeting;
}

#endif
