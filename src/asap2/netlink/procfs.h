// SPDX-License-Identifier: Apache-2.0
/*
 * Files of /proc that in a node are read where the daemon serves them: net/dev, with the counters that the NIC's netdevs
 * show, those that tell of connections, which are the node's, and of VLAN devices and bonds. And files of /sys/class/net
 * in network namespaces that programs make in a node.
 *
 * /proc is the process's own, so nothing can be laid over those files; a program that opens one gets another one.
 */
#ifndef ASAP2_PROCFS_H
#define ASAP2_PROCFS_H

#include <stdio.h>

#include "netlink_sockets.h"

#define SERVED "/run/asap2-proc/"
#define SYSCTL "sys/net/netfilter/nf_conntrack_"

/* Whether the process is in the namespace whose connections the server has. */
static int process_at_home(void)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), home;

	if (fd < 0)
		return 0;
	home = at_home(fd);
	close(fd);
	return home;
}

/* Whether the file, by its path below /proc, is one that may be served. */
static int may_be_served(const char *name)
{
	if (!strcmp(name, "net/dev"))
		return 1; /* its content depends on the process's namespace */
	return (!strcmp(name, "modules") || !strcmp(name, "net/nf_conntrack") ||
		!strcmp(name, "net/stat/nf_conntrack") || !strncmp(name, SYSCTL, strlen(SYSCTL)) ||
		!strncmp(name, "net/vlan/", 9) || !strncmp(name, "net/bonding/", 12)) &&
	       process_at_home();
}

/*
 * Write to *place* where a file below /sys/class/net is served in another network namespace than the node's, where a
 * program sees a sysfs that it has mounted itself. 0: as it is.
 */
static int place_in_sys(const char *path, char *place, size_t room)
{
	const struct greeting *greeting = diverted();
	int fd = greeting ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1, written;
	uint64_t here;

	if (fd < 0)
		return 0;
	here = namespace_of(fd);
	close(fd);
	if (here == greeting->home)
		return 0;
	written = snprintf(place, room, SERVED "netns/%llu%s", (unsigned long long)here, path + strlen("/sys"));
	return written > 0 && (size_t)written < room;
}

/*
 * The path to open in place of *path*. While the daemon is being started again the file cannot be read for a moment
 * (ENOTCONN): we wait for it, as for an answer.
 */
static const char *served(const char *path)
{
	static __thread char place[128];
	const char *name;
	int64_t give_up = 0;
	struct stat status;
	int saved = errno;

	if (!path)
		return path;
	if (!strncmp(path, "/sys/class/net/", 15)) {
		if (!place_in_sys(path, place, sizeof place)) {
			errno = saved;
			return path;
		}
	} else {
		if (strncmp(path, "/proc/", 6))
			return path;
		name = path + (strncmp(path + 6, "self/", 5) ? 6 : 11);
		if (strlen(name) >= sizeof place - strlen(SERVED) || !may_be_served(name)) {
			errno = saved;
			return path;
		}
		strcpy(place, SERVED);
		strcat(place, name);
	}
	errno = 0;
	while (stat(place, &status) < 0 && errno != ENOENT) {
		if (!give_up)
			give_up = now_ms() + ABSENT_MS;
		if (now_ms() >= give_up)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = TRY_MS * 1000000L }, NULL);
	}
	if (errno != ENOENT) /* else this is a guest, or the node has only just begun */
		path = place;
	errno = saved;
	return path;
}

static mode_t mode_of(int flags, va_list arguments)
{
	return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
}

/* A function of libc with these parameters; the arguments are what it gets in their place. */
#define OPENS(name, parameters, ...) \
	int name parameters \
	{ \
		REAL(name); \
		va_list arguments; \
		mode_t mode; \
\
		va_start(arguments, flags); \
		mode = mode_of(flags, arguments); \
		va_end(arguments); \
		return real(__VA_ARGS__, flags, mode); \
	}
OPENS(open, (const char *path, int flags, ...), served(path))
OPENS(open64, (const char *path, int flags, ...), served(path))
OPENS(openat, (int directory, const char *path, int flags, ...), directory, served(path))
OPENS(openat64, (int directory, const char *path, int flags, ...), directory, served(path))

#define SERVES(type, name, parameters, ...) \
	type name parameters; \
	type name parameters \
	{ \
		REAL(name); \
		return real(__VA_ARGS__); \
	}
SERVES(FILE *, fopen, (const char *path, const char *mode), served(path), mode)
SERVES(FILE *, fopen64, (const char *path, const char *mode), served(path), mode)
/* what programs built with _FORTIFY_SOURCE call; declared by no header without it */
SERVES(int, __open_2, (const char *path, int flags), served(path), flags)
SERVES(int, __open64_2, (const char *path, int flags), served(path), flags)
SERVES(int, __openat_2, (int directory, const char *path, int flags), directory, served(path), flags)
SERVES(int, __openat64_2, (int directory, const char *path, int flags), directory, served(path), flags)
/* sysctl(8) writes only to what has a mode to be written, as nf_conntrack_max has not outside the first namespace */
SERVES(int, stat, (const char *path, struct stat *status), served(path), status)
SERVES(int, stat64, (const char *path, struct stat64 *status), served(path), status)
SERVES(int, statx, (int directory, const char *path, int flags, unsigned int mask, struct statx *status), directory,
       served(path), flags, mask, status)

#endif
