// SPDX-License-Identifier: Apache-2.0
/*
 * A statically linked program whose system calls redirectd handles: each name on the command line is a case, which prints
 * "ok", or says what is not as the kernel does it. Its requests are for what the NIC's daemon answers.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define WANT(condition) \
	do { \
		if (!(condition)) { \
			printf("line %d: %s: %s\n", __LINE__, #condition, strerror(errno)); \
			exit(1); \
		} \
	} while (0)

static const char *netdev;
static struct {
	struct nlmsghdr header;
	struct ifinfomsg link;
} request;
static char room[65536];

static int open_socket(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	WANT(fd >= 0);
	return fd;
}

/* Whether a received message is the link as the NIC's driver shows it: with a parent device, which a veth has not. */
static int is_answer(const char *message, ssize_t size)
{
	const struct nlmsghdr *header = (const struct nlmsghdr *)message;
	const struct rtattr *attribute = (const struct rtattr *)(message + NLMSG_LENGTH(sizeof(struct ifinfomsg)));
	int left = size - NLMSG_LENGTH(sizeof(struct ifinfomsg));

	if (size < (ssize_t)sizeof *header || header->nlmsg_type != RTM_NEWLINK)
		return 0;
	for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left))
		if (attribute->rta_type == 56 /* IFLA_PARENT_DEV_NAME */)
			return 1;
	return 0;
}

static int asks(int fd)
{
	return send(fd, &request, sizeof request, 0) == sizeof request &&
	       is_answer(room, recv(fd, room, sizeof room, 0));
}

static void ways(void)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK }, sender = { 0 };
	struct iovec parts[2] = { { &request, 10 }, { (char *)&request + 10, sizeof request - 10 } };
	struct iovec rooms[2] = { { room, 20 }, { room + 20, sizeof room - 20 } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
	socklen_t length = sizeof sender;
	int fd = open_socket();

	WANT(write(fd, &request, sizeof request) == sizeof request && is_answer(room, read(fd, room, sizeof room)));
	WANT(writev(fd, parts, 2) == sizeof request && is_answer(room, readv(fd, rooms, 2)));
	WANT(sendmsg(fd, &message, 0) == sizeof request);
	message = (struct msghdr){ &sender, sizeof sender, rooms, 2, NULL, 0, 0 };
	WANT(is_answer(room, recvmsg(fd, &message, 0)) && message.msg_namelen == sizeof sender && sender.nl_pid == 0);
	WANT(sendto(fd, &request, sizeof request, 0, (struct sockaddr *)&kernel, sizeof kernel) == sizeof request);
	sender.nl_pid = 1;
	WANT(is_answer(room, recvfrom(fd, room, sizeof room, 0, (struct sockaddr *)&sender, &length)));
	WANT(sender.nl_pid == 0 && length == sizeof sender);
	WANT(getsockname(fd, (struct sockaddr *)&sender, &length) == 0 && sender.nl_pid == (uint32_t)getpid());
	WANT(connect(fd, (struct sockaddr *)&kernel, sizeof kernel) == 0 && asks(fd));
	WANT(send(fd, &request, sizeof request, 0) > 0 && recv(fd, room, 16, MSG_PEEK | MSG_TRUNC) > 16);
	WANT(is_answer(room, recv(fd, room, sizeof room, 0)));
	WANT(recv(fd, room, sizeof room, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	WANT(send(fd, (void *)1, 100, 0) == -1 && errno == EFAULT);
	WANT(pwritev2(fd, parts, 2, -1, 0) == -1 && errno == EOPNOTSUPP);
}

static void several(void)
{
	struct iovec part = { &request, sizeof request }, rooms[4];
	struct mmsghdr out[3] = { 0 }, in[4] = { 0 };
	int fd = open_socket(), i;

	for (i = 0; i < 3; i++)
		out[i].msg_hdr = (struct msghdr){ .msg_iov = &part, .msg_iovlen = 1 };
	for (i = 0; i < 4; i++) {
		rooms[i] = (struct iovec){ room + i * 16384, 16384 };
		in[i].msg_hdr = (struct msghdr){ .msg_iov = &rooms[i], .msg_iovlen = 1 };
	}
	WANT(sendmmsg(fd, out, 3, 0) == 3 && out[2].msg_len == sizeof request);
	WANT(recvmmsg(fd, in, 4, MSG_DONTWAIT, NULL) == 3);
	for (i = 0; i < 3; i++)
		WANT(is_answer(rooms[i].iov_base, in[i].msg_len));
}

static void copies(void)
{
	int fd = open_socket(), copy, i;

	WANT((copy = dup(fd)) >= 0 && asks(copy));
	WANT((copy = fcntl(fd, F_DUPFD_CLOEXEC, 3)) >= 0 && asks(copy) && fcntl(copy, F_GETFD) == FD_CLOEXEC);
	WANT(dup2(copy, copy + 1) == copy + 1 && asks(copy + 1));
	WANT(dup2(fd, 5) == -1 && errno == EBADF); /* there nobody would see what is sent */
	WANT(dup2(fd, 5000) == -1 && errno == EBADF && dup2(fd, -1) == -1 && errno == EBADF);
	WANT(dup3(fd, fd, 0) == -1 && errno == EINVAL && dup3(fd, 950, 1) == -1 && errno == EINVAL);
	WANT((copy = fcntl(fd, F_DUPFD, 950)) == 950 && asks(copy) && fcntl(fd, F_DUPFD, 950) == 951);
	WANT(fcntl(fd, F_DUPFD, 5000) == -1 && errno == EINVAL && fcntl(fd, F_DUPFD, -1) == -1 && errno == EINVAL);
	for (i = 0; i < 300; i++) {
		WANT(close(fd) == 0);
		fd = open_socket();
		WANT(asks(fd));
	}
	WANT(close(fd) == 0 && (copy = open("/dev/null", O_RDWR)) >= 0 && dup2(copy, fd) == fd);
	WANT(write(fd, "text", 4) == 4 && read(fd, room, 10) == 0);
}

/* Data cannot go between a netlink socket and a file or pipe unseen; between other descriptors it can. */
static void splices(void)
{
	int fd = open_socket(), file = memfd_create("request", 0), high, ends[2];

	WANT(pipe(ends) == 0 && write(file, &request, sizeof request) == sizeof request &&
	     lseek(file, 0, SEEK_SET) == 0);
	WANT(sendfile(fd, file, NULL, sizeof request) == -1 && errno == EINVAL);
	WANT(splice(file, NULL, ends[1], NULL, 8, 0) == 8);
	WANT(splice(ends[0], NULL, fd, NULL, 8, 0) == -1 && errno == EINVAL);
	WANT(send(fd, &request, sizeof request, 0) == sizeof request);
	WANT(splice(fd, NULL, ends[1], NULL, 4096, 0) == -1 && errno == EINVAL);
	WANT(is_answer(room, recv(fd, room, sizeof room, 0)));
	WANT((high = fcntl(ends[1], F_DUPFD, 950)) >= 950 && splice(file, NULL, high, NULL, 8, 0) == 8);
	WANT(sendfile(high, file, NULL, 8) == 8);
}

/* Nobody sees what a ring is asked for. */
static void rings(void)
{
	static char parameters[120]; /* struct io_uring_params */

	WANT(syscall(SYS_io_uring_setup, 1, parameters) == -1 && errno == ENOSYS);
	WANT(syscall(SYS_io_uring_enter, 0, 1, 0, 0, NULL, 0) == -1 && errno == ENOSYS);
	WANT(syscall(SYS_io_uring_register, 0, 0, NULL, 0) == -1 && errno == ENOSYS);
}

/* No netlink socket is inherited from a program that has the library. */
static void inherited(void)
{
	int fd, value;
	socklen_t length = sizeof value;

	for (fd = 0; fd < 1024; fd++)
		WANT(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &length) < 0 || value != AF_NETLINK);
}

static void descriptors(void)
{
	struct rlimit few = { 32, 4096 }, now;
	int fd, i;

	WANT(setrlimit(RLIMIT_NOFILE, &few) == 0 && asks(open_socket()));
	WANT(getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_cur == 32 && now.rlim_max == 4096);
	few.rlim_max = 32; /* only who has CAP_SYS_RESOURCE gets a socket here, redirectd in a container does not */
	WANT(setrlimit(RLIMIT_NOFILE, &few) == 0);
	fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	WANT(fd >= 0 ? asks(fd) : errno == EMFILE);
	for (i = 0; i < 2000 && socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) >= 0; i++)
		;
	WANT(i < 2000 && errno == EMFILE);
}

static void times(void)
{
	struct timeval limit = { .tv_usec = 100000 };
	int fd = open_socket();

	WANT(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
	WANT(recv(fd, room, sizeof room, 0) == -1 && errno == EAGAIN);
}

static volatile sig_atomic_t caught;

static void catch (int number)
{
	(void)number;
	caught++;
}

static void *kick(void *thread)
{
	while (usleep(1000) == 0)
		pthread_kill(*(pthread_t *)thread, SIGUSR1);
	return NULL;
}

static void signals(void)
{
	struct itimerval once = { .it_value = { .tv_usec = 100000 } }, often = { { 0, 1000 }, { 0, 1000 } };
	struct sigaction action = { .sa_handler = catch };
	pthread_t self = pthread_self(), kicker;
	int fd = open_socket(), i;

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &once, NULL);
	WANT(recv(fd, room, sizeof room, 0) == -1 && errno == EINTR && caught == 1);
	action.sa_flags = SA_RESTART;
	sigaction(SIGALRM, &action, NULL);
	sigaction(SIGUSR1, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	WANT(pthread_create(&kicker, NULL, kick, &self) == 0);
	for (i = 0; i < 300; i++)
		WANT(asks(fd));
	WANT(caught > 1 && recv(fd, room, sizeof room, MSG_DONTWAIT) == -1 && errno == EAGAIN); /* none twice */
}

static void processes(void)
{
	int fd = open_socket(), status = 1;

	WANT(asks(fd));
	if (!fork())
		_exit(asks(fd) && asks(open_socket()) ? 0 : 1);
	WANT(wait(&status) > 0 && status == 0 && asks(fd));
	execl("/proc/self/exe", "calls", netdev, "ways", (char *)NULL);
}

static void nested(void)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { 1, &allow };

	WANT(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0 && asks(open_socket()));
	WANT(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program) == -1);
	WANT(errno == EBUSY);
}

/* Deleting a representor is the driver's to refuse; without the capability, the kernel's to refuse first. */
static void refused(void)
{
	static struct {
		struct nlmsghdr header;
		struct ifinfomsg link;
	} deletion;
	struct nlmsgerr *error = (struct nlmsgerr *)(room + NLMSG_HDRLEN);
	int fd, id, status = 1;

	deletion.header = (struct nlmsghdr){ sizeof deletion, RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0 };
	deletion.link.ifi_index = if_nametoindex(netdev);
	for (id = 0; id <= 1000; id += 1000) {
		if (!fork()) {
			WANT(setuid(id) == 0);
			fd = open_socket();
			WANT(send(fd, &deletion, sizeof deletion, 0) > 0 && recv(fd, room, sizeof room, 0) > 0);
			printf("%s\n", strerror(-error->error));
			exit(0);
		}
		WANT(wait(&status) > 0 && status == 0);
	}
}

/* Say "ready", and then what is told of the link next, forever. */
static void monitor(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK };
	int fd = open_socket();
	ssize_t got;

	WANT(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
	puts("ready");
	for (;;) {
		fflush(stdout);
		got = recv(fd, room, sizeof room, 0);
		if (got < 0)
			printf("%s\n", strerror(errno));
		else
			puts(is_answer(room, got) ? "the NIC's" : "the kernel's");
	}
}

/* The number of the group of devlink's family, which the kernel may not have at all. */
static uint32_t devlink_group(int fd)
{
	struct {
		struct nlmsghdr header;
		struct genlmsghdr command;
		struct nlattr attribute;
		char name[8];
	} family = { { sizeof family, GENL_ID_CTRL, NLM_F_REQUEST, 1, 0 },
		     { CTRL_CMD_GETFAMILY, 1, 0 },
		     { NLA_HDRLEN + 8, CTRL_ATTR_FAMILY_NAME },
		     "devlink" };
	const struct nlattr *attribute;
	uint32_t id = 0;
	char *at, *end;

	WANT(send(fd, &family, sizeof family, 0) > 0);
	end = room + recv(fd, room, sizeof room, 0);
	for (at = room + NLMSG_LENGTH(GENL_HDRLEN); at < end; at += NLA_ALIGN(attribute->nla_len)) {
		attribute = (const struct nlattr *)at;
		if ((attribute->nla_type & NLA_TYPE_MASK) != CTRL_ATTR_MCAST_GROUPS)
			continue;
		/* the first group's attributes: one of them is the number */
		for (at += 2 * NLA_HDRLEN; !id && at < end; at += NLA_ALIGN(attribute->nla_len)) {
			attribute = (const struct nlattr *)at;
			if (attribute->nla_type == CTRL_ATTR_MCAST_GRP_ID)
				memcpy(&id, at + NLA_HDRLEN, sizeof id);
		}
		return id;
	}
	return 0;
}

/* Join devlink's group, say "ready", and wait to be told of something. */
static void member(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC);
	uint32_t group;

	WANT(fd >= 0 && (group = devlink_group(fd)));
	WANT(setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) == 0);
	puts("ready");
	fflush(stdout);
	WANT(recv(fd, room, sizeof room, 0) > (ssize_t)NLMSG_LENGTH(GENL_HDRLEN));
	WANT(setsockopt(fd, SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, &group, sizeof group) == 0);
}

/* Ask for each line of the input. */
static void by_line(void)
{
	int fd = open_socket();

	while (fgets(room, sizeof room, stdin)) {
		puts(asks(fd) ? "ok" : strerror(errno));
		fflush(stdout);
	}
}

#ifdef __x86_64__
static void no_32_bit(int number)
{
	(void)number;
	puts("ok");
	fflush(stdout);
	_exit(0);
}

static int call_32_bit(int number, uint32_t first, uint32_t second, uint32_t third)
{
	int result;

	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(number), "b"(first), "c"(second), "d"(third)
			 : "memory", "r8", "r9", "r10", "r11");
	return result;
}

/* 32-bit calls: no sockets that nobody would redirect, but others. */
static void compat(void)
{
	static uint32_t netlink[3] = { AF_NETLINK, SOCK_RAW, NETLINK_ROUTE }, plain[3] = { AF_UNIX, SOCK_STREAM, 0 };
	int ends[2];

	WANT(pipe(ends) == 0);
	signal(SIGSEGV, no_32_bit); /* of a kernel without such calls */
	WANT(call_32_bit(359 /* socket */, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) == -EAFNOSUPPORT);
	WANT(call_32_bit(102 /* socketcall */, 1, (uint32_t)(uintptr_t)netlink, 0) == -EAFNOSUPPORT);
	WANT(call_32_bit(102, 1, (uint32_t)(uintptr_t)plain, 0) >= 0);
	WANT(call_32_bit(359, AF_UNIX, SOCK_STREAM, 0) >= 0);
	WANT(call_32_bit(425 /* io_uring_setup */, 1, 0, 0) == -ENOSYS);
	WANT(dup2(ends[1], 940) == 940 && call_32_bit(4 /* write */, 940, (uint32_t)(uintptr_t)plain, 4) == 4);
	WANT(dup2(open_socket(), 950) == 950 && call_32_bit(4, 950, (uint32_t)(uintptr_t)plain, 4) == -EBADF);
	netlink[0] = 950;
	WANT(call_32_bit(102, 9 /* send */, (uint32_t)(uintptr_t)netlink, 0) == -EBADF);
	WANT(call_32_bit(6 /* close */, 950, 0, 0) == 0);
	WANT(call_32_bit(54 /* ioctl */, 0, 0x8946 /* SIOCETHTOOL */, 0) == -EOPNOTSUPP);
}
#else
static void compat(void)
{
}
#endif

static void sockets(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);

	puts(fd < 0 ? strerror(errno) : "a socket");
	exit(0);
}

static const struct {
	const char *name;
	void (*call)(void);
} cases[] = {
	{ "member", member },       { "compat", compat },           { "ways", ways },       { "several", several },
	{ "copies", copies },       { "descriptors", descriptors }, { "times", times },     { "signals", signals },
	{ "processes", processes }, { "nested", nested },           { "refused", refused }, { "monitor", monitor },
	{ "by_line", by_line },     { "sockets", sockets },         { "splices", splices }, { "rings", rings },
	{ "inherited", inherited },
};

int main(int count, char **words)
{
	size_t i;

	(void)count;
	netdev = words[1];
	request.header = (struct nlmsghdr){ sizeof request, RTM_GETLINK, NLM_F_REQUEST, 7, 0 };
	request.link.ifi_index = if_nametoindex(netdev);
	for (i = 0; i < sizeof cases / sizeof *cases; i++)
		if (!strcmp(words[2], cases[i].name)) {
			cases[i].call();
			puts("ok");
			return 0;
		}
	return 2;
}
