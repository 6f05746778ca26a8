// SPDX-License-Identifier: Apache-2.0
/*
 * redirectd SOCKET LOCK: redirects what programs ask by system calls of their own, without libc: static ones, Go's.
 *
 * Who starts a program in a node or guest connects to SOCKET, gets the seccomp filter, installs it in itself (so it is
 * that of the program and of all that the program starts), and gives redirectd the listener. The calls that the filter
 * notifies redirectd of (filter.h) it handles as the redirect library does (calls.h), with the library's own code.
 * ASAP2_NETLINK_SOCK names the server's socket.
 *
 * A program whose listener nobody holds any more gets ENOSYS from these calls. So redirectd is two processes. The keeper
 * takes listeners and holds them; its child, the worker, serves them, on a thread for each. When the worker dies, the
 * keeper forks another, which answers what the dead one has left unanswered (inflight.h). When the keeper dies, the
 * worker forks another. A further redirectd of the same node waits for the end of both.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/socket.h>

#define MEMBERSHIPS 1024
#define SPIN 0 /* who spins here has the CPU that the caller had, and the daemon often waits for that one */

#include "serve.h"

#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>

#define STACK (512 << 10)
#define CLIENTS 64 /* that are being given the filter at a time */

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP 1UL
#endif

/* What precedes the filter on SOCKET. */
struct offer {
	uint32_t call; /* number of seccomp(2) */
	uint32_t flags; /* of SECCOMP_SET_MODE_FILTER */
	uint32_t instructions;
};

static int entrance; /* the listening socket */
static int worker;
static int lock;

/* ---- what the library stands in front of ---- */

static ssize_t real_sendmsg(int fd, const struct msghdr *message, int flags)
{
	return sendmsg(fd, message, flags);
}

static ssize_t real_recvmsg(int fd, struct msghdr *message, int flags)
{
	return recvmsg(fd, message, flags);
}

static int real_connect(int fd, const struct sockaddr *address, socklen_t length)
{
	return connect(fd, address, length);
}

/* A netlink socket that is bound for a caller gets the number that the kernel would have tried first, the caller's. */
static int real_bind(int fd, const struct sockaddr *address, socklen_t length)
{
	struct sockaddr_nl wanted = *(const struct sockaddr_nl *)address;

	if (caller.kind && !wanted.nl_pid) {
		wanted.nl_pid = caller.portid;
		if (bind(fd, (struct sockaddr *)&wanted, sizeof wanted) == 0)
			return 0;
	}
	return bind(fd, address, length);
}

static struct ask interrupted_caller;

static int borrow(const struct place *place)
{
	int fd = take(place->process, place->number);

	interrupted_caller = caller;
	caller = (struct ask){ .kind = CALLER, .portid = place->process, .options = 1 };
	return fd;
}

static void give_back(const struct place *place, int fd)
{
	(void)place;
	caller = interrupted_caller;
	close(fd);
}

static void say(const char *words)
{
	dprintf(STDERR_FILENO, "redirectd: %s\n", words);
}

/* Write down which processes the two are: keeper and worker. */
static void note(int keeper)
{
	char line[32];
	int size = snprintf(line, sizeof line, "%-10d %-10d\n", keeper, worker);

	if (pwrite(lock, line, size, 0) < 0)
		say("cannot write down its processes");
}

/* Close all descriptors but these and those that every redirectd process needs. */
static void keep_only(int one)
{
	int limit = getdtablesize(), fd, i, kept;

	for (fd = STDERR_FILENO + 1; fd < limit; fd++) {
		kept = fd == one || fd == entrance || fd == lock;
		for (i = 0; i < LISTENERS && !kept; i++)
			kept = listeners[i] == fd + 1;
		if (!kept)
			close(fd);
	}
}

/* ---- the worker ---- */

static void __attribute__((noreturn)) keep(int pair);

static void start_serving(int number)
{
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &attributes, serve, (void *)(intptr_t)number))
		abort();
	pthread_attr_destroy(&attributes);
}

/* Read a message with a number and perhaps a descriptor; the size of the message. */
static ssize_t receive_listener(int from, int32_t *number, int *fd)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct msghdr message = {
		.msg_iov = &(struct iovec){ number, sizeof *number },
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof control,
	};
	ssize_t got;

	*fd = -1;
	while ((got = recvmsg(from, &message, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
		;
	if (got > 0 && message.msg_controllen && control.align.cmsg_type == SCM_RIGHTS &&
	    control.align.cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(fd, CMSG_DATA(&control.align), sizeof(int));
	return got;
}

/* Hand a listener to the worker. */
static void send_listener(int to, int32_t number)
{
	int fd = listeners[number] - 1;
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { .align = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
	struct msghdr message = {
		.msg_iov = &(struct iovec){ &number, sizeof number },
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof control,
	};

	memcpy(CMSG_DATA(&control.align), &fd, sizeof(int));
	sendmsg(to, &message, MSG_NOSIGNAL); /* a worker that is dying: the next one inherits it */
}

/* Serve all listeners, and those that come by *pair*. */
static void __attribute__((noreturn)) work(int pair)
{
	int32_t number;
	int i, fd, fresh[2], process;

	home_namespace = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	home_inode = namespace_inode(getpid(), "net");
	if (home_namespace < 0)
		abort();

	for (i = 0; i < LISTENERS; i++)
		if (listeners[i])
			start_serving(i);
	for (;;) {
		if (receive_listener(pair, &number, &fd) > 0) {
			if (fd >= 0 && number >= 0 && number < LISTENERS) {
				/* the number's last programs have ended, their thread soon will */
				while (__atomic_load_n(&listeners[number], __ATOMIC_ACQUIRE))
					nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
				listeners[number] = fd + 1;
				start_serving(number);
			} else if (fd >= 0)
				close(fd);
			continue;
		}
		say("the process that keeps the listeners was killed; another takes its place");
		close(pair);
		waitpid(-1, NULL, WNOHANG);
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fresh) < 0)
			abort();
		process = getpid();
		switch (fork()) {
		case 0:
			keep_only(fresh[0]);
			worker = process;
			note(getpid());
			keep(fresh[0]);
		case -1:
			abort();
		}
		close(fresh[0]);
		pair = fresh[1];
	}
}

/* ---- the keeper ---- */

static void end_both(int number)
{
	kill(worker, SIGKILL);
	_exit(128 + number);
}

/* Fork a worker; *pair* is that by which it gets listeners. */
static void start_worker(int *pair)
{
	int both[2], process;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, both) < 0 || (process = fork()) < 0) {
		say("cannot start a worker");
		_exit(1);
	}
	if (!process) {
		signal(SIGTERM, SIG_DFL);
		keep_only(both[1]);
		work(both[1]);
	}
	close(both[1]);
	*pair = both[0];
	worker = process;
	note(getpid());
}

/* Give a new client the filter; the connection, or -1. */
static int welcome(void)
{
	struct offer offer = { SYS_seccomp, 0, filter_length };
	struct iovec parts[] = { { &offer, sizeof offer }, { filter, filter_length * sizeof *filter } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
	int client = accept4(entrance, NULL, NULL, SOCK_CLOEXEC);

	offer.flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV |
		      SECCOMP_FILTER_FLAG_SPEC_ALLOW;
	if (client >= 0 && sendmsg(client, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		close(client);
		return -1;
	}
	return client;
}

/* Take a client's listener and tell it. */
static void take_listener(int client, int pair)
{
	static unsigned next;
	static const char kind[] = "anon_inode:seccomp notify";
	char path[64], name[sizeof kind] = "";
	int32_t word;
	int fd, i;

	if (receive_listener(client, &word, &fd) <= 0 || fd < 0)
		return;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (readlink(path, name, sizeof name) != sizeof kind - 1 || memcmp(name, kind, sizeof kind - 1)) {
		close(fd);
		return;
	}
	ioctl(fd, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP); /* Linux 6.6 */
	for (i = 0; i < LISTENERS && listeners[(next + i) % LISTENERS]; i++)
		;
	next += i + 1;
	if (i == LISTENERS) {
		say("too many programs");
		close(fd);
		return;
	}
	i = (next - 1) % LISTENERS;
	listeners[i] = fd + 1;
	send_listener(pair, i);
	send(client, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Take listeners and hold them, and replace the worker when it dies; *pair* leads there. */
static void __attribute__((noreturn)) keep(int pair)
{
	static struct pollfd polled[2 + CLIENTS + LISTENERS];
	int clients[CLIENTS] = { 0 }, numbers[LISTENERS], i, count, first;
	int handle = syscall(SYS_pidfd_open, worker, 0);

	signal(SIGTERM, end_both);

	for (;;) {
		polled[0] = (struct pollfd){ .fd = handle, .events = POLLIN };
		polled[1] = (struct pollfd){ .fd = entrance, .events = POLLIN };
		for (i = 0; i < CLIENTS; i++)
			polled[2 + i] = (struct pollfd){ .fd = clients[i] ? clients[i] - 1 : -1, .events = POLLIN };
		first = count = 2 + CLIENTS;
		for (i = 0; i < LISTENERS; i++)
			if (listeners[i]) {
				numbers[count - first] = i;
				polled[count++] = (struct pollfd){ .fd = listeners[i] - 1 }; /* its end: POLLHUP */
			}
		if (poll(polled, count, -1) < 0)
			continue;
		for (i = first; i < count; i++)
			if (polled[i].revents) {
				close(polled[i].fd);
				listeners[numbers[i - first]] = 0;
			}
		if (polled[0].revents) {
			say("the process that serves programs was killed; another takes its place");
			close(handle);
			close(pair);
			waitpid(worker, NULL, 0);
			start_worker(&pair);
			handle = syscall(SYS_pidfd_open, worker, 0);
		}
		for (i = 0; i < CLIENTS; i++)
			if (polled[2 + i].revents) {
				take_listener(clients[i] - 1, pair);
				close(clients[i] - 1);
				clients[i] = 0;
			}
		for (i = 0; i < CLIENTS && clients[i]; i++)
			;
		if (polled[1].revents && i < CLIENTS)
			clients[i] = welcome() + 1;
	}
}

/* Listen at *path*; what was there is replaced. */
static int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof address.sun_path, "%s.new", path);
	unlink(address.sun_path);
	umask(0177);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, SOMAXCONN) < 0 ||
	    rename(address.sun_path, path) < 0)
		return -1;
	return fd;
}

int main(int count, char **words)
{
	struct rlimit limit;
	struct stat status;
	int pair;

	if (count != 3)
		return 2;
	lock = open(words[2], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0 || flock(lock, LOCK_EX) < 0 || make_shared() < 0 || (entrance = listen_at(words[1])) < 0) {
		fprintf(stderr, "redirectd: %s: %s\n", words[1], strerror(errno));
		return 1;
	}
	if (fstat(lock, &status) == 0 && status.st_size > 0)
		say("the processes before these were killed; programs that they served are refused");
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max < 65536 ? limit.rlim_max : 65536;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	signal(SIGPIPE, SIG_IGN);
	make_filter();
	start_worker(&pair);
	keep(pair);
}
