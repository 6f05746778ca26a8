// SPDX-License-Identifier: Apache-2.0
/*
 * Multicast groups of emulated families: who joins one tells the server, for the kernel does not have it.
 */
#ifndef ASAP2_GROUPS_H
#define ASAP2_GROUPS_H

#include "redirect.h"

#define MEMBERSHIPS 64

static pthread_mutex_t membership_lock = PTHREAD_MUTEX_INITIALIZER;
static struct membership {
	int fd;
	uint32_t group; /* zero: a free entry */
	ino_t inode;
} memberships[MEMBERSHIPS];
static uint64_t membership_instance;

static int membership(int fd, enum kind kind, uint32_t group)
{
	struct ask ask = { .kind = kind, .protocol = NETLINK_GENERIC, .portid = port_of(fd), .argument = group };
	struct answer answer;
	uint64_t inode = inode_of(fd);
	int i, result;

	ask.cookie = namespace_of(fd);
	if (!ask.portid)
		return -1;
	if ((result = put(&ask, fd, &inode, sizeof inode, &answer, NULL, NULL)) == -2)
		result = put(&ask, fd, &inode, sizeof inode, &answer, NULL, NULL);
	if (result < 0) {
		errno = ECONNREFUSED;
		return -1;
	}
	if (answer.verdict == PASS)
		return ALL_NATIVE;
	if (answer.verdict != DONE) {
		errno = answer.consumed ? (int)answer.consumed : EINVAL;
		return -1;
	}
	pthread_mutex_lock(&membership_lock);
	for (i = 0; i < MEMBERSHIPS; i++)
		if (memberships[i].fd == fd && memberships[i].group == group)
			memberships[i].group = 0;
	for (i = 0; kind == JOIN && i < MEMBERSHIPS; i++)
		if (!memberships[i].group) {
			memberships[i] = (struct membership){ fd, group, inode };
			break;
		}
	pthread_mutex_unlock(&membership_lock);
	return 0;
}

/* Tell a restarted server the memberships that the old one knew. */
static void rejoin(struct connection *c)
{
	struct membership known[MEMBERSHIPS];
	int i, fresh;

	if (pthread_mutex_trylock(&membership_lock))
		return;
	fresh = membership_instance != c->greeting.instance;
	membership_instance = c->greeting.instance;
	memcpy(known, memberships, sizeof known);
	pthread_mutex_unlock(&membership_lock);
	for (i = 0; fresh && i < MEMBERSHIPS; i++) {
		struct ask ask = { .kind = JOIN, .protocol = NETLINK_GENERIC, .argument = known[i].group };
		struct answer answer;
		uint64_t inode = known[i].inode;

		if (!known[i].group || inode_of(known[i].fd) != known[i].inode)
			continue;
		ask.portid = port_of(known[i].fd);
		ask.cookie = namespace_of(known[i].fd);
		if (ask_on(c, &ask, known[i].fd, &inode, sizeof inode, &answer, NULL, NULL) < 0)
			return;
	}
}

/*
 * A program listens to connections: groups that the kernel has, but what happens to the node's connections is told only
 * while somebody listens, so the server is to look.
 */
static void listens(int fd)
{
	struct ask ask = { .kind = JOIN, .protocol = NETLINK_NETFILTER };
	struct answer answer;
	uint64_t inode = 0;

	if (netlink_protocol(fd) != NETLINK_NETFILTER || !at_home(fd))
		return;
	ask.cookie = namespace_of(fd);
	put(&ask, fd, &inode, sizeof inode, &answer, NULL, NULL);
}

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
	const struct sockaddr_nl *netlink = (const struct sockaddr_nl *)address;
	int result = real_bind(fd, address, length);

	if (result == 0 && address && length >= sizeof *netlink && netlink->nl_family == AF_NETLINK &&
	    netlink->nl_groups)
		listens(fd);
	return result;
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
	REAL(setsockopt);
	uint32_t group;
	int result;

	if (level == SOL_NETLINK && (option == NETLINK_ADD_MEMBERSHIP || option == NETLINK_DROP_MEMBERSHIP) &&
	    length >= sizeof group && value) {
		memcpy(&group, value, sizeof group);
		if (group >= GROUPS_FIRST && group <= GROUPS_LAST && netlink_protocol(fd) == NETLINK_GENERIC) {
			result = membership(fd, option == NETLINK_ADD_MEMBERSHIP ? JOIN : LEAVE, group);
			if (result != ALL_NATIVE)
				return result;
		}
	}
	result = real(fd, level, option, value, length);
	if (result == 0 && level == SOL_NETLINK && option == NETLINK_ADD_MEMBERSHIP)
		listens(fd);
	return result;
}

#endif
