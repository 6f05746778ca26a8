// SPDX-License-Identifier: Apache-2.0
/*
 * Multicast groups of emulated families: who joins one tells the server, for the kernel does not have it.
 */
#ifndef ASAP2_GROUPS_H
#define ASAP2_GROUPS_H

#include "netlink_sockets.h"

#ifndef MEMBERSHIPS
#define MEMBERSHIPS 64
#endif

/* Whose socket it is: the process (0: this one) and the number that it has there. */
struct place {
	pid_t process;
	int number;
};

static int borrow(const struct place *place); /* the socket as a descriptor of this process; -1 when there is none */
static void give_back(const struct place *place, int fd);

static pthread_mutex_t membership_lock = PTHREAD_MUTEX_INITIALIZER;
static struct membership {
	struct place place;
	uint32_t group; /* zero: a free entry */
	ino_t inode;
} memberships[MEMBERSHIPS];
static uint64_t membership_instance;

/* A socket that is *fd* here, and at *place* where it is used, joins or leaves a group. */
static int membership(int fd, struct place place, enum kind kind, uint32_t group)
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
		if (!memcmp(&memberships[i].place, &place, sizeof place) && memberships[i].group == group)
			memberships[i].group = 0;
	for (i = 0; kind == JOIN && i < MEMBERSHIPS; i++)
		if (!memberships[i].group) {
			memberships[i] = (struct membership){ place, group, inode };
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
		int fd, result = 0;

		if (!known[i].group || (fd = borrow(&known[i].place)) < 0)
			continue;
		if (inode_of(fd) == known[i].inode) {
			ask.portid = port_of(fd);
			ask.cookie = namespace_of(fd);
			result = ask_on(c, &ask, fd, &inode, sizeof inode, &answer, NULL, NULL);
		}
		give_back(&known[i].place, fd);
		if (result < 0)
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

#endif
