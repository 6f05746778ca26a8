// SPDX-License-Identifier: Apache-2.0
/*
 * What the kernel announces of netdevs to udev and others (NETLINK_KOBJECT_UEVENT): to the kernel a netdev of the NIC is
 * a virtual device; here it is where /sys/class/net has it, which is where programs look for its driver and its names.
 *
 * A message is "ACTION@DEVPATH" and then "KEY=VALUE" strings, each with a zero octet (lib/kobject_uevent.c).
 */
#ifndef ASAP2_UEVENTS_H
#define ASAP2_UEVENTS_H

#include "netlink_sockets.h"

#define VIRTUAL "/devices/virtual/net/"
#define LONGEST_ACTION 16
#define UEVENT_ROOM 4096 /* the kernel's are at most 2048 octets (UEVENT_BUFFER_SIZE), before they grow */

/* Where the DEVPATH begins in a message about a virtual netdev; NULL: it is no such message. */
static const char *virtual_netdev(const char *data, size_t size)
{
	const char *at = memchr(data, '@', size < LONGEST_ACTION ? size : LONGEST_ACTION);

	if (!at || size - (at + 1 - data) <= strlen(VIRTUAL) || size > UEVENT_ROOM || data[size - 1])
		return NULL;
	return strncmp(at + 1, VIRTUAL, strlen(VIRTUAL)) ? NULL : at + 1;
}

/* Write to *place* the directory in sysfs that the netdev is in, with a slash at its end; 0: it is a virtual one. */
static int directory_of(const char *name, char *place, size_t room)
{
	char link[IFNAMSIZ + 16], *target, *end;
	ssize_t length;

	if (strlen(name) >= IFNAMSIZ)
		return 0;
	strcpy(link, "/sys/class/net/");
	strcat(link, name);
	length = readlink(link, place, room - 1);
	if (length < 0)
		return 0;
	place[length] = 0;
	target = strstr(place, "/devices/");
	end = strrchr(place, '/');
	if (!target || !strncmp(target, VIRTUAL, strlen(VIRTUAL)))
		return 0;
	end[1] = 0;
	memmove(place, target, strlen(target) + 1);
	return 1;
}

/* Where the path begins in one string of the message, if it is one of a virtual netdev; else NULL. */
static const char *path_in(const char *line)
{
	const char *path = strpbrk(line, "@=");
	int is_path = path && (*path == '@' || !strncmp(line, "DEVPATH=", 8) || !strncmp(line, "DEVPATH_OLD=", 12));

	return is_path && !strncmp(path + 1, VIRTUAL, strlen(VIRTUAL)) ? path + 1 : NULL;
}

/* Show the *got* octets at *data*, where there is room for *capacity*; the new number of octets. */
static size_t show_uevent(int fd, char *data, size_t got, size_t capacity)
{
	char directory[256], shown[UEVENT_ROOM];
	const char *devpath = virtual_netdev(data, got), *line, *path;
	size_t length = 0, copied;
	int saved = errno;

	if (!devpath || any_protocol(fd) != NETLINK_KOBJECT_UEVENT ||
	    !directory_of(devpath + strlen(VIRTUAL), directory, sizeof directory)) {
		errno = saved;
		return got;
	}
	errno = saved;
	for (line = data; line < data + got; line += strlen(line) + 1) {
		path = path_in(line);
		copied = path ? (size_t)(path - line) : strlen(line) + 1;
		if (length + copied + sizeof directory + strlen(line) + 1 > sizeof shown)
			return got;
		memcpy(shown + length, line, copied);
		length += copied;
		if (!path)
			continue;
		strcpy(shown + length, directory);
		strcat(shown + length, path + strlen(VIRTUAL));
		length += strlen(shown + length) + 1;
	}
	if (length > capacity)
		return got;
	memcpy(data, shown, length);
	return length;
}

#endif
