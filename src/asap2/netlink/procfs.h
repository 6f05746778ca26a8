// SPDX-License-Identifier: Apache-2.0
/*
 * /proc/net/dev: in a node it is read where the daemon serves it, with the counters that the NIC's netdevs show.
 *
 * /proc is the process's own, so nothing can be laid over that file; a program that opens it gets another one.
 */
#ifndef ASAP2_PROCFS_H
#define ASAP2_PROCFS_H

#include <stdio.h>

#include "redirect.h"

#define SERVED "/run/asap2-proc/net/dev"

/*
 * The path to open in place of *path*. While the daemon is being started again the file cannot be read for a moment
 * (ENOTCONN): we wait for it, as for an answer.
 */
static const char *served(const char *path)
{
	int64_t give_up = 0;
	struct stat status;
	int saved = errno;

	if (!path || strncmp(path, "/proc/", 6) || (strcmp(path + 6, "net/dev") && strcmp(path + 6, "self/net/dev")))
		return path;
	errno = 0;
	while (stat(SERVED, &status) < 0 && errno != ENOENT) {
		if (!give_up)
			give_up = now_ms() + ABSENT_MS;
		if (now_ms() >= give_up)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = TRY_MS * 1000000L }, NULL);
	}
	if (errno != ENOENT) /* else this is a guest, or the node has only just begun */
		path = SERVED;
	errno = saved;
	return path;
}

static mode_t mode_of(int flags, va_list arguments)
{
	return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
}

#define OPENS(name)                                          \
	int name(const char *path, int flags, ...)           \
	{                                                    \
		REAL(name);                                  \
		va_list arguments;                           \
		mode_t mode;                                 \
                                                             \
		va_start(arguments, flags);                  \
		mode = mode_of(flags, arguments);            \
		va_end(arguments);                           \
		return real(served(path), flags, mode);      \
	}
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                          \
	int name(int directory, const char *path, int flags, ...) \
	{                                                       \
		REAL(name);                                     \
		va_list arguments;                              \
		mode_t mode;                                    \
                                                                \
		va_start(arguments, flags);                     \
		mode = mode_of(flags, arguments);               \
		va_end(arguments);                              \
		return real(directory, served(path), flags, mode); \
	}
OPENS_AT(openat)
OPENS_AT(openat64)

FILE *fopen(const char *path, const char *mode)
{
	REAL(fopen);
	return real(served(path), mode);
}

FILE *fopen64(const char *path, const char *mode)
{
	REAL(fopen64);
	return real(served(path), mode);
}

/* what programs built with _FORTIFY_SOURCE call; declared by no header without it */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);

int __open_2(const char *path, int flags)
{
	REAL(__open_2);
	return real(served(path), flags);
}

int __open64_2(const char *path, int flags)
{
	REAL(__open64_2);
	return real(served(path), flags);
}

#endif
