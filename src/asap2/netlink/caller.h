// SPDX-License-Identifier: Apache-2.0
/*
 * The process whose system call redirectd handles: its memory, its descriptors, its privileges, its signals.
 */
#ifndef ASAP2_CALLER_H
#define ASAP2_CALLER_H

#include <linux/capability.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdio.h>
#include <sys/resource.h>

#include "netlink_sockets.h"

#define CALLERS 16 /* that a thread remembers */

#ifndef SIOCGSKNS
#define SIOCGSKNS 0x894C
#endif

/* ---- memory ---- */

/* Copy from the caller's parts, one after the other, to ours; 0, or -1 when not all can be read. */
static int copy_in(pid_t tid, const struct iovec *ours, size_t our_count, const struct iovec *theirs, size_t count)
{
	size_t size = total(theirs, count);

	return !size || process_vm_readv(tid, ours, our_count, theirs, count, 0) == (ssize_t)size ? 0 : -1;
}

static int copy_out(pid_t tid, const struct iovec *ours, size_t our_count, const struct iovec *theirs, size_t count)
{
	size_t size = total(ours, our_count);

	return !size || process_vm_writev(tid, ours, our_count, theirs, count, 0) == (ssize_t)size ? 0 : -1;
}

static int get(pid_t tid, uint64_t at, void *to, size_t size)
{
	return copy_in(tid, &(struct iovec){ to, size }, 1, &(struct iovec){ (void *)at, size }, 1);
}

static int set(pid_t tid, uint64_t at, const void *from, size_t size)
{
	return copy_out(tid, &(struct iovec){ (void *)from, size }, 1, &(struct iovec){ (void *)at, size }, 1);
}

/* ---- what /proc says ---- */

static int open_of(pid_t tid, const char *name)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%d/%s", tid, name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* The text of /proc/TID/status, into *text*; 0, or -1 when there is no such thread. */
static int read_status(pid_t tid, char *text, size_t room)
{
	int fd = open_of(tid, "status");
	ssize_t got;

	if (fd < 0)
		return -1;
	got = read(fd, text, room - 1);
	close(fd);
	if (got <= 0)
		return -1;
	text[got] = 0;
	return 0;
}

static uint64_t status_field(const char *status, const char *name, int base)
{
	const char *at = strstr(status, name);

	return at ? strtoull(at + strlen(name), NULL, base) : 0;
}

static ino_t namespace_inode(pid_t tid, const char *name)
{
	struct stat status;
	char path[64];

	snprintf(path, sizeof path, "/proc/%d/ns/%s", tid, name);
	return stat(path, &status) < 0 ? 0 : status.st_ino;
}

/* ---- descriptors ---- */

static __thread struct known_caller {
	pid_t tid;
	pid_t process;
	int handle; /* pidfd */
} known_callers[CALLERS];

/* The process of a thread, and a handle of it; NULL when it is gone. */
static struct known_caller *process_of(pid_t tid, int afresh)
{
	struct known_caller *known = &known_callers[tid % CALLERS];
	char status[512];

	if (known->tid == tid && !afresh && syscall(SYS_tgkill, known->process, tid, 0) == 0)
		return known;
	if (known->tid)
		close(known->handle);
	known->tid = 0;
	if (read_status(tid, status, sizeof status) < 0)
		return NULL;
	known->process = status_field(status, "\nTgid:", 10);
	known->handle = syscall(SYS_pidfd_open, known->process, 0);
	if (known->handle < 0)
		return NULL;
	known->tid = tid;
	return known;
}

/* The caller's descriptor as one of ours; -1 with errno when it has none. */
static int take(pid_t tid, int number)
{
	struct known_caller *known;
	int afresh, fd = -1;

	for (afresh = 0; afresh < 2; afresh++) {
		known = process_of(tid, afresh);
		errno = EBADF;
		if (!known)
			break;
		fd = syscall(SYS_pidfd_getfd, known->handle, number, 0);
		if (fd >= 0 || errno != ESRCH)
			break;
	}
	return fd;
}

static int is_open(pid_t tid, int number)
{
	char path[64], target;

	snprintf(path, sizeof path, "/proc/%d/fd/%d", tid, number);
	return readlink(path, &target, 1) >= 0;
}

/* ---- privileges ---- */

static int has_net_admin(pid_t tid)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, tid };
	struct __user_cap_data_struct sets[2];

	return syscall(SYS_capget, &header, sets) == 0 && sets[0].effective & 1 << CAP_NET_ADMIN;
}

/* The user namespace that owns the network namespace of a socket. */
static ino_t owner_of(int socket)
{
	struct stat status;
	int network = ioctl(socket, SIOCGSKNS), user = network < 0 ? -1 : ioctl(network, NS_GET_USERNS);
	ino_t found = user >= 0 && fstat(user, &status) == 0 ? status.st_ino : 0;

	if (network >= 0)
		close(network);
	if (user >= 0)
		close(user);
	return found;
}

/*
 * Whether the thread may administer the network namespace of a socket, as ns_capable() would find: it has the capability
 * in our user namespace, or in that which owns the network namespace.
 */
static int may_administer(pid_t tid, int socket)
{
	static ino_t ours;
	ino_t theirs;

	if (!has_net_admin(tid))
		return 0;
	if (!ours)
		ours = namespace_inode(getpid(), "user");
	theirs = namespace_inode(tid, "user");
	return theirs && (theirs == ours || theirs == owner_of(socket));
}

static uid_t user_of(pid_t tid)
{
	char status[1024];

	return read_status(tid, status, sizeof status) < 0 ? (uid_t)-1 : (uid_t)status_field(status, "\nUid:", 10);
}

/* Let this thread's capability to administer networks rest, or use it again. */
static void administer(int on)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct sets[2];

	if (syscall(SYS_capget, &header, sets) < 0)
		return;
	if (on)
		sets[0].effective |= sets[0].permitted & 1 << CAP_NET_ADMIN;
	else
		sets[0].effective &= ~(1 << CAP_NET_ADMIN);
	syscall(SYS_capset, &header, sets);
}

/*
 * From here on this thread asks for that thread, with its privileges and no more; *socket* is the one it uses. Ends with
 * speak_for_self().
 */
static void speak_for(pid_t tid, int socket)
{
	const struct known_caller *known = process_of(tid, 0);
	pid_t process = known ? known->process : tid;
	uint32_t privileged = may_administer(tid, socket);

	if (caller.kind != CALLER || caller.portid != (uint32_t)process || caller.options != privileged)
		caller = (struct ask){
			.kind = CALLER, .portid = process, .options = privileged, .argument = user_of(tid)
		};
	if (!privileged)
		administer(0);
}

static void speak_for_self(void)
{
	if (!caller.options)
		administer(1);
}

/* ---- signals ---- */

/*
 * What a blocked call of the thread is to return because of a signal, as an errno; 0: nothing. The kernel has told the
 * thread of a signal that is pending for itself, and the first thread of one that is pending for the process.
 */
static int interrupted(pid_t tid, int has_timeout)
{
	char status[2048];
	uint64_t pending;

	if (read_status(tid, status, sizeof status) < 0)
		return 0;
	pending = status_field(status, "\nSigPnd:", 16);
	if ((pid_t)status_field(status, "\nTgid:", 10) == tid)
		pending |= status_field(status, "\nShdPnd:", 16);
	pending &= ~status_field(status, "\nSigBlk:", 16);
	if (!pending)
		return 0;
	return has_timeout ? EINTR : 512; /* ERESTARTSYS: the kernel restarts the call, or makes it EINTR */
}

#endif
