// SPDX-License-Identifier: Apache-2.0
/*
 * requests NETDEV REQUEST COUNT libc|own: makes a request so often, by libc's functions or by system calls of its own, and
 * prints how many nanoseconds each took.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP 100

static int own;
static char room[65536];

static int open_socket(int domain, int type, int protocol)
{
	return own ? (int)syscall(SYS_socket, domain, type, protocol, 0) : socket(domain, type, protocol);
}

static int asked(int fd, const void *request, size_t size)
{
	ssize_t got;

	if (own) {
		if (syscall(SYS_sendto, fd, request, size, 0, NULL, 0) < 0)
			return -1;
		got = syscall(SYS_recvfrom, fd, room, sizeof room, 0, NULL, NULL);
	} else {
		if (send(fd, request, size, 0) < 0)
			return -1;
		got = recv(fd, room, sizeof room, 0);
	}
	return got < (ssize_t)sizeof(struct nlmsghdr) || ((struct nlmsghdr *)room)->nlmsg_type == NLMSG_ERROR ? -1 : 0;
}

int main(int count, char **words)
{
	struct {
		struct nlmsghdr header;
		union {
			struct ifinfomsg link;
			struct rtmsg route;
			struct genlmsghdr command;
		};
		struct rtattr attribute;
		char value[16];
	} request = { 0 };
	struct ethtool_drvinfo info = { .cmd = ETHTOOL_GDRVINFO };
	struct ifreq interface = { .ifr_data = (char *)&info };
	struct timespec before, after;
	int64_t *took;
	int times, fd, i, result, is_ioctl;

	if (count != 5)
		return 2;
	times = atoi(words[3]);
	own = !strcmp(words[4], "own");
	took = calloc(times, sizeof *took);
	request.header.nlmsg_flags = NLM_F_REQUEST;
	is_ioctl = !strcmp(words[2], "driver");
	if (is_ioctl) {
		strncpy(interface.ifr_name, words[1], IFNAMSIZ - 1);
		fd = open_socket(AF_INET, SOCK_DGRAM, 0);
	} else if (!strcmp(words[2], "family")) {
		fd = open_socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC);
		request.header.nlmsg_type = GENL_ID_CTRL;
		request.command = (struct genlmsghdr){ CTRL_CMD_GETFAMILY, 1, 0 };
		memcpy((char *)&request + NLMSG_LENGTH(GENL_HDRLEN),
		       &(struct rtattr){ RTA_LENGTH(8), CTRL_ATTR_FAMILY_NAME }, sizeof(struct rtattr));
		strcpy((char *)&request + NLMSG_LENGTH(GENL_HDRLEN) + sizeof(struct rtattr), "devlink");
		request.header.nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN) + RTA_LENGTH(8);
	} else if (!strcmp(words[2], "link")) {
		fd = open_socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
		request.header.nlmsg_type = RTM_GETLINK;
		request.header.nlmsg_len = NLMSG_LENGTH(sizeof request.link);
		request.link.ifi_index = if_nametoindex(words[1]);
	} else {
		fd = open_socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
		request.header.nlmsg_type = RTM_GETROUTE;
		request.header.nlmsg_len = NLMSG_LENGTH(sizeof request.route) + RTA_LENGTH(4);
		request.route = (struct rtmsg){ .rtm_family = AF_INET, .rtm_dst_len = 32 };
		request.attribute = (struct rtattr){ RTA_LENGTH(4), RTA_DST };
		memcpy(request.value, (uint8_t[]){ 127, 0, 0, 1 }, 4);
	}
	for (i = -WARM_UP; i < times; i++) {
		clock_gettime(CLOCK_MONOTONIC, &before);
		if (!is_ioctl)
			result = asked(fd, &request, request.header.nlmsg_len);
		else if (own)
			result = syscall(SYS_ioctl, fd, SIOCETHTOOL, &interface);
		else
			result = ioctl(fd, SIOCETHTOOL, &interface);
		clock_gettime(CLOCK_MONOTONIC, &after);
		if (result < 0) {
			perror(words[2]);
			return 1;
		}
		if (i >= 0)
			took[i] = (after.tv_sec - before.tv_sec) * 1000000000L + after.tv_nsec - before.tv_nsec;
	}
	for (i = 0; i < times; i++)
		printf("%ld\n", (long)took[i]);
	return 0;
}
