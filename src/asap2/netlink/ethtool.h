// SPDX-License-Identifier: Apache-2.0
/*
 * ioctl(SIOCETHTOOL), ioctl(SIOCSIFMTU) and ioctl(SIOCGIFMTU): what they ask of a device of the NIC, the server answers.
 */
#ifndef ASAP2_ETHTOOL_H
#define ASAP2_ETHTOOL_H

#include "netlink_sockets.h"

/*
 * How long the caller's buffer is (include/uapi/linux/ethtool.h): a base, and as many elements as the number at an
 * offset says. The elements are the answer, but for those commands that also set. Of some answers the kernel alone says
 * how long they are, and the caller knows: MOST is more than any.
 */
#define MOST 4096

static const struct shape {
	uint32_t command;
	uint32_t base;
	uint32_t counted_at; /* 0: there are as many as the server says */
	uint32_t element;
	int sets;
} shapes[] = {
	{ ETHTOOL_GSET, sizeof(struct ethtool_cmd), 0, 0, 0 },
	{ ETHTOOL_GDRVINFO, sizeof(struct ethtool_drvinfo), 0, 0, 0 },
	{ ETHTOOL_SCOALESCE, sizeof(struct ethtool_coalesce), 0, 0, 1 },
	{ ETHTOOL_SRINGPARAM, sizeof(struct ethtool_ringparam), 0, 0, 1 },
	{ ETHTOOL_SPAUSEPARAM, sizeof(struct ethtool_pauseparam), 0, 0, 1 },
	{ ETHTOOL_SCHANNELS, sizeof(struct ethtool_channels), 0, 0, 1 },
	{ ETHTOOL_SPFLAGS, sizeof(struct ethtool_value), 0, 0, 1 },
	{ ETHTOOL_SRSSH, sizeof(struct ethtool_rxfh), 0, 0, 1 }, /* and what receive_hash() says */
	{ ETHTOOL_GLINK, sizeof(struct ethtool_value), 0, 0, 0 },
	{ ETHTOOL_GCOALESCE, sizeof(struct ethtool_coalesce), 0, 0, 0 },
	{ ETHTOOL_GRINGPARAM, sizeof(struct ethtool_ringparam), 0, 0, 0 },
	{ ETHTOOL_GPAUSEPARAM, sizeof(struct ethtool_pauseparam), 0, 0, 0 },
	{ ETHTOOL_GCHANNELS, sizeof(struct ethtool_channels), 0, 0, 0 },
	{ ETHTOOL_GRXRINGS, sizeof(struct ethtool_rxnfc), 0, 0, 0 },
	{ ETHTOOL_GRXCLSRLCNT, sizeof(struct ethtool_rxnfc), 0, 0, 0 },
	{ ETHTOOL_GRXCLSRLALL, sizeof(struct ethtool_rxnfc), 0, 0, 0 },
	{ ETHTOOL_GRXFH, offsetof(struct ethtool_rxnfc, data) + sizeof(uint64_t), 0, 0, 0 },
	{ ETHTOOL_GRXCSUM, sizeof(struct ethtool_value), 0, 0, 0 },
	{ ETHTOOL_GTXCSUM, sizeof(struct ethtool_value), 0, 0, 0 },
	{ ETHTOOL_GSG, sizeof(struct ethtool_value), 0, 0, 0 },
	{ ETHTOOL_GTSO, sizeof(struct ethtool_value), 0, 0, 0 },
	{ ETHTOOL_GGSO, sizeof(struct ethtool_value), 0, 0, 0 },
	{ ETHTOOL_GGRO, sizeof(struct ethtool_value), 0, 0, 0 },
	{ ETHTOOL_GFLAGS, sizeof(struct ethtool_value), 0, 0, 0 },
	{ ETHTOOL_GPFLAGS, sizeof(struct ethtool_value), 0, 0, 0 },
	{ ETHTOOL_GSSET_INFO, sizeof(struct ethtool_sset_info), 0, sizeof(uint32_t), 0 },
	{ ETHTOOL_GSTRINGS, sizeof(struct ethtool_gstrings), 0, ETH_GSTRING_LEN, 0 },
	{ ETHTOOL_GSTATS, sizeof(struct ethtool_stats), 0, sizeof(uint64_t), 0 },
	{ ETHTOOL_GRSSH, sizeof(struct ethtool_rxfh), 0, sizeof(uint32_t), 0 },
	{ ETHTOOL_GLINKSETTINGS, sizeof(struct ethtool_link_settings), 0, sizeof(uint32_t), 0 },
	{ ETHTOOL_GPERMADDR, sizeof(struct ethtool_perm_addr), offsetof(struct ethtool_perm_addr, size), 1, 0 },
	{ ETHTOOL_GFEATURES, sizeof(struct ethtool_gfeatures), offsetof(struct ethtool_gfeatures, size),
	  sizeof(struct ethtool_get_features_block), 0 },
	{ ETHTOOL_SFEATURES, sizeof(struct ethtool_sfeatures), offsetof(struct ethtool_sfeatures, size),
	  sizeof(struct ethtool_set_features_block), 1 },
	{ ETHTOOL_FLASHDEV, sizeof(struct ethtool_flash), 0, 0, 1 },
};

/* Octets of table and key behind a struct ethtool_rxfh that sets them; too many for the server: none. */
static size_t receive_hash(const char *buffer)
{
	struct ethtool_rxfh hash;

	memcpy(&hash, buffer, sizeof hash);
	if (hash.indir_size == ETH_RXFH_INDIR_NO_CHANGE)
		hash.indir_size = 0;
	if (hash.indir_size > MOST || hash.key_size > MOST)
		return 0;
	return hash.indir_size * sizeof hash.rss_config[0] + hash.key_size;
}

static const struct shape *shape_of(uint32_t command)
{
	size_t i;

	for (i = 0; i < sizeof shapes / sizeof *shapes; i++)
		if (shapes[i].command == command)
			return &shapes[i];
	return NULL;
}

/* How long a caller's buffer is, by its base; 0: too long to be one that the server knows. */
static size_t buffer_size(const struct shape *shape, const char *base)
{
	uint32_t count = shape->element ? MOST : 0;

	if (shape->counted_at)
		memcpy(&count, base + shape->counted_at, sizeof count);
	if (count > MOST)
		return 0;
	return shape->base + (size_t)count * shape->element +
	       (shape->command == ETHTOOL_SRSSH ? receive_hash(base) : 0);
}

/*
 * Have the server answer what the *size* octets at *buffer* ask of the device *name*; fd is a socket of the caller's
 * namespace. Returns as ioctl() does, or ALL_NATIVE; *filled is then how many octets of the buffer are the answer.
 */
static int ethtool(int fd, const char *name, const struct shape *shape, char *buffer, size_t size, size_t *filled)
{
	struct ask ask = { .kind = ETHTOOL, .argument = shape->command };
	const struct greeting *greeting = diverted();
	struct answer answer;
	size_t given = shape->sets ? size : shape->base, length;
	char *room;
	int result, i;

	if (greeting && !has(greeting->ethtool, shape->command))
		return ALL_NATIVE;
	room = malloc(IFNAMSIZ + size);
	if (!room)
		return -1;
	ask.cookie = namespace_of(fd);
	for (i = 0; i < 2; i++) {
		memcpy(room, name, IFNAMSIZ);
		memcpy(room + IFNAMSIZ, buffer, given);
		length = size;
		if ((result = put(&ask, fd, room, IFNAMSIZ + given, &answer, room, &length)) != -2)
			break; /* else the server died: the next one may know */
	}
	if (result < 0) {
		errno = ENODEV; /* as of a device that its driver has detached */
		result = -1;
	} else if (answer.verdict == PASS)
		result = ALL_NATIVE;
	else if (answer.verdict == DONE) {
		memcpy(buffer, room, length);
		*filled = length;
	} else {
		errno = answer.consumed ? (int)answer.consumed : EOPNOTSUPP;
		result = -1;
	}
	free(room);
	return result;
}

/* Tell the server of an MTU that is to be set, or is there; what put() gives. *answer and *mtu are what it says. */
static int ask_mtu(int fd, unsigned long command, const struct ifreq *request, struct answer *answer, int *mtu,
		   size_t *length)
{
	struct ask ask = { .kind = ETHTOOL, .argument = command };
	char payload[IFNAMSIZ + sizeof(int)];

	if (!diverted())
		return -1;
	memcpy(payload, request->ifr_name, IFNAMSIZ);
	memcpy(payload + IFNAMSIZ, &request->ifr_mtu, sizeof(int));
	ask.cookie = namespace_of(fd);
	return put(&ask, fd, payload, sizeof payload, answer, mtu, length);
}

/* The largest MTU is the NIC's, not the veth's: have the server refuse what is above it. */
static int set_mtu(int fd, const struct ifreq *request)
{
	struct answer answer;

	if (ask_mtu(fd, SIOCSIFMTU, request, &answer, NULL, NULL) < 0 || answer.verdict != ERROR)
		return ALL_NATIVE;
	errno = answer.consumed ? (int)answer.consumed : EINVAL;
	return -1;
}

/* Some veths have another MTU than their device is to show. */
static int get_mtu(int fd, struct ifreq *request)
{
	struct answer answer;
	int mtu;
	size_t length = sizeof mtu;

	if (syscall(SYS_ioctl, fd, SIOCGIFMTU, request, BY_LIBRARY) < 0)
		return -1;
	if (ask_mtu(fd, SIOCGIFMTU, request, &answer, &mtu, &length) == 0 && answer.verdict == DONE &&
	    length == sizeof mtu)
		request->ifr_mtu = mtu;
	return 0;
}

#endif
