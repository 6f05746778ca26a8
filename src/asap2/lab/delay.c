// SPDX-License-Identifier: Apache-2.0
/*
 * delay DEVICE SETTINGS: what a long cable does to packets. Makes the TAP device DEVICE in this network namespace and
 * prints its ifindex. Each frame that is sent on DEVICE is received there again, later: after the delay of the file
 * SETTINGS, with jitter, and never before an earlier frame. It ends when the device is deleted, and with its
 * namespace's processes, as any other.
 *
 * A device whose process has died would be a cut cable. So there are two processes, which both hold the device: the
 * keeper forks the worker, and another when that is killed; when the keeper is killed, the worker forks another. What
 * a killed worker held back is lost.
 *
 * Frames have virtio's header (IFF_VNET_HDR), so super-packets and unfinished checksums stay what they are.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NSEC 1000000000ull
#define MTU 10240 /* WIRE_MTU of cable.py */
#define MOST_OCTETS (256u << 20) /* held back; what comes on top is dropped */
#define DEVICE_QUEUE 10000 /* frames that wait for this process */
#define TURN 64 /* frames to read before those that are due are sent */

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

/* The file, shared with who changes it. */
struct settings {
	uint64_t delay, jitter; /* nanoseconds */
	uint64_t dropped; /* frames for which there was no room */
};

struct frame {
	struct frame *next;
	uint64_t due;
	size_t size;
	unsigned char data[];
};

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NSEC + t.tv_nsec;
}

static void must(int succeeded, const char *what)
{
	if (succeeded)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

/* xorshift64* (Vigna, 2016) */
static uint64_t arbitrary(void)
{
	static uint64_t state;

	if (!state)
		state = now() | 1;
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1dull;
}

static int make_device(const char *name)
{
	int tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC),
	    sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	unsigned int offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };

	must(tap >= 0, "/dev/net/tun");
	must(sock >= 0, "socket");
	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	must(!ioctl(tap, TUNSETIFF, &request), "TUNSETIFF");
	if (ioctl(tap, TUNSETOFFLOAD, offloads | TUN_F_USO4 | TUN_F_USO6))
		must(!ioctl(tap, TUNSETOFFLOAD, offloads), "TUNSETOFFLOAD");
	request.ifr_qlen = DEVICE_QUEUE;
	must(!ioctl(sock, SIOCSIFTXQLEN, &request), "SIOCSIFTXQLEN");
	request.ifr_mtu = MTU;
	must(!ioctl(sock, SIOCSIFMTU, &request), "SIOCSIFMTU");
	request.ifr_flags = IFF_UP;
	must(!ioctl(sock, SIOCSIFFLAGS, &request), "SIOCSIFFLAGS");
	close(sock);
	printf("%u\n", if_nametoindex(name));
	fflush(stdout);
	return tap;
}

static uint64_t due(const volatile struct settings *set)
{
	uint64_t delay = set->delay, jitter = set->jitter;

	if (jitter) {
		uint64_t more = arbitrary() % (2 * jitter + 1);

		delay = delay + more > jitter ? delay + more - jitter : 0;
	}
	return now() + delay;
}

static int pidfd_of(pid_t process)
{
	return syscall(SYS_pidfd_open, process, 0);
}

/* Whether somebody has deleted the device. */
static int is_gone(int tap)
{
	struct ifreq request;

	return ioctl(tap, TUNGETIFF, &request) < 0;
}

static void __attribute__((noreturn)) keep(int tap, volatile struct settings *set, pid_t worker);

/* Fork another keeper, of this process; a handle of it. */
static int start_keeper(int tap, volatile struct settings *set)
{
	pid_t self = getpid(), keeper = fork();

	must(keeper >= 0, "fork");
	if (!keeper)
		keep(tap, set, self);
	return pidfd_of(keeper);
}

/* Hold frames back; *keeper* is the other process. */
static void __attribute__((noreturn)) work(int tap, volatile struct settings *set, int keeper)
{
	static unsigned char buffer[1 << 17];
	struct frame *head = NULL, **tail = &head;
	uint64_t held = 0, last = 0;

	prctl(PR_SET_TIMERSLACK, 1);
	for (;;) {
		struct pollfd ready[2] = { { .fd = tap, .events = POLLIN }, { .fd = keeper, .events = POLLIN } };
		uint64_t at = now(), wait = head && head->due > at ? head->due - at : 0;
		struct timespec timeout = { .tv_sec = wait / NSEC, .tv_nsec = wait % NSEC };

		if (ppoll(ready, 2, head ? &timeout : NULL, NULL) < 0 && errno != EINTR)
			must(0, "ppoll");
		if (ready[0].revents & POLLERR && is_gone(tap))
			exit(0);
		if (ready[1].revents) {
			close(keeper);
			waitpid(-1, NULL, WNOHANG); /* one that this process has forked */
			keeper = start_keeper(tap, set);
		}
		for (int turn = 0; turn < TURN; turn++) {
			ssize_t size = read(tap, buffer, sizeof(buffer));
			struct frame *frame;

			if (size < 0)
				break;
			frame = held + size > MOST_OCTETS ? NULL : malloc(sizeof(*frame) + size);
			if (!frame) {
				set->dropped++;
				continue;
			}
			memcpy(frame->data, buffer, size);
			frame->size = size;
			frame->next = NULL;
			frame->due = due(set);
			if (frame->due < last)
				frame->due = last;
			last = frame->due;
			held += size;
			*tail = frame;
			tail = &frame->next;
		}
		for (at = now(); head && head->due <= at;) {
			struct frame *frame = head;

			if (write(tap, frame->data, frame->size) < 0)
				set->dropped++;
			head = frame->next;
			if (!head)
				tail = &head;
			held -= frame->size;
			free(frame);
		}
	}
}

/* Have a worker as long as there is the device; *worker* is that which there is, or 0. */
static void __attribute__((noreturn)) keep(int tap, volatile struct settings *set, pid_t worker)
{
	struct pollfd ended = { .events = POLLIN };
	pid_t self = getpid();

	while (!is_gone(tap)) {
		if (!worker) {
			worker = fork();
			must(worker >= 0, "fork");
			if (!worker)
				work(tap, set, pidfd_of(self));
		}
		ended.fd = pidfd_of(worker);
		if (ended.fd >= 0) {
			while (poll(&ended, 1, -1) < 0)
				;
			close(ended.fd);
		}
		waitpid(worker, NULL, WNOHANG); /* not when it has forked this process */
		worker = 0;
	}
	exit(0);
}

int main(int argc, char **argv)
{
	volatile struct settings *set;
	int file;

	if (argc != 3)
		return 2;
	file = open(argv[2], O_RDWR | O_CLOEXEC);
	must(file >= 0, argv[2]);
	set = mmap(NULL, sizeof(*set), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	must(set != MAP_FAILED, argv[2]);
	keep(make_device(argv[1]), set, 0);
}
