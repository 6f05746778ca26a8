// SPDX-License-Identifier: Apache-2.0
/*
 * The redirect library: a program's netlink requests for emulated things go to asap2's server, all others to the kernel.
 *
 * Loaded by /etc/ld.so.preload. It interposes libc's send and receive functions (receive.h), connect(), setsockopt() and
 * ioctl(SIOCETHTOOL). A diverted request goes, whole, over a Unix seqpacket connection (one for each thread) to the
 * server, which queues every reply in the program's own netlink socket before it says so here: thus, as with the kernel,
 * replies are there when send() returns. While there is no server, what it might have to answer waits for the next for a
 * while, and is refused then: the kernel, which knows our devices as something else, never gets it.
 */
#include "redirect.h"
#include "receive.h"
#include "procfs.h"

/* ---- which messages ---- */

/* Types that may be diverted at all, to tell at a glance: any generic netlink family but the reserved; links and TC. */
static int plausible(const void *data, size_t size)
{
	const struct nlmsghdr *header = data;
	unsigned type;

	if (size < sizeof *header || header->nlmsg_len < sizeof *header || header->nlmsg_len > size)
		return 0;
	type = header->nlmsg_type;
	return type >= NLMSG_MIN_TYPE && (type < 1024 || (type >= EMULATED_FIRST && type <= EMULATED_LAST));
}

static int may_divert(int protocol, unsigned type)
{
	if (protocol == NETLINK_GENERIC)
		return 1;
	return (type >= RTM_NEWLINK && type <= RTM_SETLINK) || (type >= RTM_NEWQDISC && type <= RTM_GETACTION) ||
	       type == RTM_GETSTATS || type == RTM_GETNSID || (type >= RTM_NEWCHAIN && type <= RTM_GETCHAIN);
}

static int is_diverted(int protocol, unsigned type, const struct greeting *greeting)
{
	if (!greeting) /* the server says what is not its own */
		return may_divert(protocol, type);
	if (protocol == NETLINK_ROUTE)
		return type < 256 && has(greeting->route, type);
	if (type >= EMULATED_FIRST && type <= EMULATED_LAST)
		return 1;
	return type == GENL_ID_CTRL || (type < 1024 && has(greeting->genl, type));
}

/* ---- requests ---- */

static int netlink_flag(int fd, int option)
{
	int value = 0;
	socklen_t length = sizeof value;

	return getsockopt(fd, SOL_NETLINK, option, &value, &length) == 0 && value;
}

/* The port id of the socket, which is bound if it was not; 0 on failure. */
static uint32_t port_of(int fd)
{
	struct sockaddr_nl address = { 0 };
	socklen_t length = sizeof address;

	if (getsockname(fd, (struct sockaddr *)&address, &length) == 0 && address.nl_pid)
		return address.nl_pid;
	address = (struct sockaddr_nl){ .nl_family = AF_NETLINK, .nl_groups = address.nl_groups };
	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
		return 0;
	length = sizeof address;
	return getsockname(fd, (struct sockaddr *)&address, &length) == 0 ? address.nl_pid : 0;
}

static int to_kernel(int fd, const struct sockaddr_nl *address, socklen_t length)
{
	struct sockaddr_nl peer;
	socklen_t size = sizeof peer;

	if (address && length >= sizeof *address)
		return address->nl_family == AF_NETLINK && address->nl_pid == 0 && address->nl_groups == 0;
	if (address && length)
		return 0;
	if (getpeername(fd, (struct sockaddr *)&peer, &size) < 0)
		return 1;
	return peer.nl_pid == 0 && peer.nl_groups == 0;
}

enum { ALL_NATIVE = -2 };

/*
 * There is no server: have the kernel refuse each request of a batch, so that the error comes where programs look for it
 * (ethtool does not look at what send() gives). The kernel does not get the request, but one with its sequence number
 * for a link (ENODEV) or a command (EOPNOTSUPP) that cannot be. Returns as send() does.
 */
static ssize_t refuse(int fd, int protocol, const char *data, size_t position, size_t size, int flags)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	struct nlmsghdr header;
	size_t next;

	for (; (next = step(data, size, position, &header)); position = next) {
		struct {
			struct nlmsghdr header;
			union {
				struct ifinfomsg link;
				struct genlmsghdr command;
			};
		} request = { .header = header };
		struct iovec part = { &request, sizeof request };
		struct msghdr message = { .msg_name = &kernel,
					  .msg_namelen = sizeof kernel,
					  .msg_iov = &part,
					  .msg_iovlen = 1 };

		request.header.nlmsg_flags &= NLM_F_REQUEST;
		if (protocol == NETLINK_ROUTE) {
			request.header.nlmsg_type = RTM_GETLINK;
			request.link.ifi_index = INT32_MAX;
			part.iov_len = NLMSG_LENGTH(sizeof request.link);
		} else {
			request.header.nlmsg_type = GENL_ID_CTRL;
			request.command.cmd = UINT8_MAX;
			request.command.version = 1;
			part.iov_len = NLMSG_LENGTH(sizeof request.command);
		}
		request.header.nlmsg_len = part.iov_len;
		if (real_sendmsg(fd, &message, flags) < 0)
			return -1;
	}
	return size;
}

/* Have the server answer what is its own of a batch, the kernel the rest. Returns as send() does, or ALL_NATIVE. */
static ssize_t submit(int fd, int protocol, const char *data, size_t size, int flags)
{
	struct ask ask = { .kind = SUBMIT, .protocol = protocol };
	const struct greeting *greeting = NULL;
	struct nlmsghdr header;
	struct answer answer;
	size_t position, next;
	int wanted = 0, dumps = 0, retried = 0, result;

	for (position = 0; !wanted && (next = step(data, size, position, &header)); position = next)
		wanted = may_divert(protocol, header.nlmsg_type);
	if (!wanted)
		return ALL_NATIVE;
	greeting = diverted();
	wanted = 0;
	for (position = 0; (next = step(data, size, position, &header)); position = next) {
		wanted |= is_diverted(protocol, header.nlmsg_type, greeting);
		dumps |= (header.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
	}
	if (!wanted)
		return ALL_NATIVE;
	if (!(ask.portid = port_of(fd)))
		return -1;
	ask.cookie = namespace_of(fd);
	ask.options = (netlink_flag(fd, NETLINK_EXT_ACK) ? OPTION_EXT_ACK : 0) |
		      (netlink_flag(fd, NETLINK_CAP_ACK) ? OPTION_CAP_ACK : 0) |
		      (netlink_flag(fd, NETLINK_GET_STRICT_CHK) ? OPTION_STRICT : 0);

	for (position = 0; position < size;) {
		size_t end = size;

		if (size - position > CHUNK) {
			end = position;
			while (end - position < CHUNK && (next = step(data, size, end, &header)))
				end = next;
			if (end == position)
				break;
		}
		result = put(&ask, fd, data + position, end - position, &answer, NULL, NULL);
		/* most likely the server died before it read this; the next does it, or says that it has been done */
		if (result == -2 && !dumps && !retried++)
			continue;
		if (result < 0 || answer.verdict == ERROR)
			return refuse(fd, protocol, data, position, size, flags);
		if (answer.verdict & WAITING) {
			struct ask claim = { .kind = CLAIM, .protocol = protocol, .portid = ask.portid, .cookie = ask.cookie };
			struct answer ignored;

			claim.options = OPTION_FD;
			put(&claim, fd, NULL, 0, &ignored, NULL, NULL);
			answer.verdict &= ~WAITING;
		}
		if (answer.verdict == PASS) {
			struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
			struct iovec part;
			struct msghdr message = { .msg_name = &kernel,
						  .msg_namelen = sizeof kernel,
						  .msg_iov = &part,
						  .msg_iovlen = 1 };

			if (answer.consumed > end - position || answer.pass > end - position - answer.consumed ||
			    answer.consumed + answer.pass == 0) {
				errno = EPROTO;
				return -1;
			}
			position += answer.consumed;
			if (position == 0 && answer.pass == size)
				return ALL_NATIVE;
			part.iov_base = (void *)(data + position);
			part.iov_len = answer.pass;
			if (real_sendmsg(fd, &message, flags) < 0)
				return -1;
			position += answer.pass;
		} else if (answer.verdict == DONE) {
			position = end;
		} else {
			errno = EPROTO;
			return -1;
		}
	}
	return size;
}

static ssize_t divert(int fd, const void *data, size_t size, int flags, const void *address, socklen_t length)
{
	int protocol;

	if (!plausible(data, size))
		return ALL_NATIVE;
	protocol = netlink_protocol(fd);
	if (protocol < 0 || !to_kernel(fd, address, length))
		return ALL_NATIVE;
	return submit(fd, protocol, data, size, flags);
}

static ssize_t divert_parts(int fd, const struct iovec *parts, size_t count, int flags, const void *address,
			    socklen_t length)
{
	size_t i, size = 0, position = 0;
	char small[8192], *data = small; /* sendmsg() may be called where malloc() may not */
	ssize_t result;

	while (count && parts[0].iov_len == 0) {
		parts++;
		count--;
	}
	if (count == 0)
		return ALL_NATIVE;
	if (count == 1)
		return divert(fd, parts[0].iov_base, parts[0].iov_len, flags, address, length);
	for (i = 0; i < count; i++) {
		if (parts[i].iov_len > SIZE_MAX / 2 - size)
			return ALL_NATIVE;
		size += parts[i].iov_len;
	}
	/* a header may be cut by parts, but then at least its length and type stand in the first */
	if (parts[0].iov_len >= sizeof(struct nlmsghdr) && !plausible(parts[0].iov_base, size))
		return ALL_NATIVE;
	if (netlink_protocol(fd) < 0)
		return ALL_NATIVE;
	if (size > sizeof small && !(data = malloc(size)))
		return -1;
	for (i = 0; i < count; i++) {
		memcpy(data + position, parts[i].iov_base, parts[i].iov_len);
		position += parts[i].iov_len;
	}
	result = divert(fd, data, size, flags, address, length);
	if (data != small)
		free(data);
	return result;
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t length)
{
	REAL(sendto);
	ssize_t result = divert(fd, data, size, flags, address, length);
	return result == ALL_NATIVE ? real(fd, data, size, flags, address, length) : result;
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
	REAL(send);
	ssize_t result = divert(fd, data, size, flags, NULL, 0);
	return result == ALL_NATIVE ? real(fd, data, size, flags) : result;
}

ssize_t write(int fd, const void *data, size_t size)
{
	REAL(write);
	ssize_t result = divert(fd, data, size, 0, NULL, 0);
	return result == ALL_NATIVE ? real(fd, data, size) : result;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
	REAL(writev);
	ssize_t result = count > 0 ? divert_parts(fd, parts, count, 0, NULL, 0) : ALL_NATIVE;
	return result == ALL_NATIVE ? real(fd, parts, count) : result;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	ssize_t result =
		divert_parts(fd, message->msg_iov, message->msg_iovlen, flags, message->msg_name, message->msg_namelen);
	return result == ALL_NATIVE ? real_sendmsg(fd, message, flags) : result;
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
	REAL(sendmmsg);
	unsigned i;

	if (netlink_protocol(fd) < 0)
		return real(fd, messages, count, flags);
	for (i = 0; i < count; i++) {
		ssize_t sent = sendmsg(fd, &messages[i].msg_hdr, flags);
		if (sent < 0)
			return i ? (int)i : -1;
		messages[i].msg_len = sent;
	}
	return count;
}

/* A socket connected to the kernel would refuse the server's replies: bind it only, as connect() does besides. */
int connect(int fd, const struct sockaddr *address, socklen_t length)
{
	const struct sockaddr_nl *kernel = (const struct sockaddr_nl *)address;

	if (address && length >= sizeof *kernel && kernel->nl_family == AF_NETLINK && kernel->nl_pid == 0 &&
	    kernel->nl_groups == 0 && netlink_protocol(fd) >= 0)
		return port_of(fd) ? 0 : -1;
	return real_connect(fd, address, length);
}

/* ---- multicast groups of emulated families ---- */

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

/* Tell a server that was started anew of the memberships that the old one knew. */
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
	return real(fd, level, option, value, length);
}

/* ---- ioctl(SIOCETHTOOL), ioctl(SIOCSIFMTU) ---- */

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

static int ethtool(int fd, const struct ifreq *request)
{
	struct ask ask = { .kind = ETHTOOL };
	const struct greeting *greeting;
	struct answer answer;
	char *buffer = request->ifr_data, *room;
	const struct shape *shape = NULL;
	uint32_t command, count;
	size_t i, size, given, length;
	int result;

	memcpy(&command, buffer, sizeof command);
	for (i = 0; i < sizeof shapes / sizeof *shapes; i++)
		if (shapes[i].command == command)
			shape = &shapes[i];
	if (!shape || ((greeting = diverted()) && !has(greeting->ethtool, command)))
		return ALL_NATIVE;
	count = shape->element ? MOST : 0;
	if (shape->counted_at)
		memcpy(&count, buffer + shape->counted_at, sizeof count);
	if (count > MOST)
		return ALL_NATIVE;
	size = shape->base + (size_t)count * shape->element;
	if (command == ETHTOOL_SRSSH)
		size += receive_hash(buffer);
	given = shape->sets ? size : shape->base;
	room = malloc(IFNAMSIZ + size);
	if (!room)
		return -1;
	ask.cookie = namespace_of(fd);
	ask.argument = command;
	for (i = 0; i < 2; i++) {
		memcpy(room, request->ifr_name, IFNAMSIZ);
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
	else if (answer.verdict == DONE)
		memcpy(buffer, room, length);
	else {
		errno = answer.consumed ? (int)answer.consumed : EOPNOTSUPP;
		result = -1;
	}
	free(room);
	return result;
}

/* The largest MTU is the NIC's, not the veth's: have the server refuse what is above it. */
static int set_mtu(int fd, const struct ifreq *request)
{
	struct ask ask = { .kind = ETHTOOL, .argument = SIOCSIFMTU };
	char payload[IFNAMSIZ + sizeof(int)];
	struct answer answer;

	if (!diverted())
		return ALL_NATIVE;
	memcpy(payload, request->ifr_name, IFNAMSIZ);
	memcpy(payload + IFNAMSIZ, &request->ifr_mtu, sizeof(int));
	ask.cookie = namespace_of(fd);
	if (put(&ask, fd, payload, sizeof payload, &answer, NULL, NULL) < 0 || answer.verdict != ERROR)
		return ALL_NATIVE;
	errno = answer.consumed ? (int)answer.consumed : EINVAL;
	return -1;
}

int ioctl(int fd, unsigned long request, ...)
{
	REAL(ioctl);
	va_list arguments;
	void *argument;
	int result;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	if (request == SIOCETHTOOL && argument && ((struct ifreq *)argument)->ifr_data) {
		result = ethtool(fd, argument);
		if (result != ALL_NATIVE)
			return result;
	}
	if (request == SIOCSIFMTU && argument && set_mtu(fd, argument) != ALL_NATIVE)
		return -1;
	return real(fd, request, argument);
}
