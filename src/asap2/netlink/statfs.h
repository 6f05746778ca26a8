// SPDX-License-Identifier: Apache-2.0
/*
 * What kind of file system a file is in: the daemon's files of /sys and /proc are sysfs's and proc's. libudev, and with
 * it NetworkManager, systemd and libvirt, refuses a device whose directory is in any other (sd_device_set_syspath()).
 */
#ifndef ASAP2_STATFS_H
#define ASAP2_STATFS_H

#include <linux/magic.h>
#include <stdio.h>
#include <sys/vfs.h>

#include "procfs.h"

#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546 /* linux/magic.h has it since Linux 5.17 */
#endif

/* The type to show for a file that is open as *fd* and in a FUSE file system. */
static long shown_type(int fd)
{
	char link[32], path[256];
	ssize_t length;

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof path - 1);
	path[length < 0 ? 0 : length] = 0;
	if (!strcmp(path, "/sys") || !strncmp(path, "/sys/", 5) ||
	    !strncmp(path, SERVED "netns/", strlen(SERVED "netns/")))
		return SYSFS_MAGIC;
	return strncmp(path, SERVED, strlen(SERVED)) ? FUSE_SUPER_MAGIC : PROC_SUPER_MAGIC;
}

static long shown_type_of(const char *path)
{
	int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_PATH | O_CLOEXEC), saved = errno;
	long type = FUSE_SUPER_MAGIC;

	if (fd >= 0) {
		type = shown_type(fd);
		close(fd);
	}
	errno = saved;
	return type;
}

#define STATES(name, file, parameter, shown, type) \
	int name(file parameter, struct type *status) \
	{ \
		REAL(name); \
		int saved = errno, result = real(parameter, status); \
\
		if (result == 0 && status->f_type == FUSE_SUPER_MAGIC) { \
			status->f_type = shown(parameter); \
			errno = saved; \
		} \
		return result; \
	}
STATES(statfs, const char *, path, shown_type_of, statfs)
STATES(statfs64, const char *, path, shown_type_of, statfs64)
STATES(fstatfs, int, fd, shown_type, statfs)
STATES(fstatfs64, int, fd, shown_type, statfs64)

#endif
