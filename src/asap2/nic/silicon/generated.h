// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Written by asap2.nic.silicon.generate from fields.py, tunnels/ and abi.py, which say what these mean. Do not edit. */
/* clang-format off */
#pragma once

#define TABLES 4
#define STAGES 8
#define METERS 16384
#define LOOKUPS 17
#define COPY_LOOKUPS 4
#define TRACED_LOOKUPS 8
#define MASKS 0x10000
#define ACTIONS 512
#define L3_WINDOW 192
#define EXTENSIONS 8
#define MPLS_LABELS 3
#define COPIES 6
#define NEAR 4096
#define OUTER_MAX 96
#define TUNNEL_PORTS 8
#define RESUMES 65535
#define ONWARD 65535
#define OPTION_KINDS 4
#define OPTIONS_MAX 256
#define SET_OPTIONS_MAX 48
#define LAST_STAGE 254
#define DROP_REASONS 16
#define TRACE_BYTES 4096
#define TEST_SLOT 0
#define UPCALL_SLOTS 8192
#define UPCALL_UNIT 2048
#define POLICIES 256
#define POLICY_TIMEOUTS 16
#define POLICY_NAME 32
#define LOCKS 1024
#define KEEP_MOST 64
#define HARDWARE_IDLE 30
#define SAMPLE_COOKIE 16
#define SAMPLE_BYTES 65535
#define WATCH_SHORT 192
#define WATCH_USUAL 2048
#define WATCH_BYTES 65535
#define UPCALL_MAGIC 0xa5a00000
#define SELF_MARK 0xa5b00000
#define CONTINUE_MARK 0xa5c00000
#define CARRIED_MAGIC 51104
#define TUNNEL_LIST 0x20000000
#define LIMITS 0x10000000
#define DELIVER 0xffffffff
#define IN_PORT 0xffffffff
#define UPCALL_SEQ 0xfffff
#define BARE_LIST 0x10000000
#define VLAN_PRESENT 4096
#define VXLAN_PORT 4789
#define VXLAN_LEN 8
#define VXLAN_ID_VALID 8
#define VXLAN_ID_AT 4
#define GENEVE_PORT 6081
#define GENEVE_LEN 8
#define GENEVE_OPTIONS_MAX 252
#define GENEVE_OAM 128
#define GENEVE_ID_AT 4
#define GRE_LEN 4
#define GRE_CHECKSUM 32768
#define GRE_KEY 8192
#define GRE_SEQUENCE 4096
#define TUN_CSUM 1
#define TUN_OPTIONS 2048
#define TUN_GBP 4096
#define TUN_ERSPAN 16384
#define GBP_KIND 255
#define TUN_FLAGS 773

enum port_flag {
	PORT_ENABLED = 1,
	PORT_INTERNAL = 2,
	PORT_PEER = 4,
	PORT_PEER_ANY = 8,
	PORT_INGRESS = 16,
	PORT_KNOWN = 32,
	PORT_WIRE = 64,
	PORT_METADATA = 128,
	PORT_RESUME = 256,
	PORT_BEHIND = 512,
	PORT_ARRIVED = 1024,
	PORT_BARE = 2048,
	PORT_VEILED = 4096,
};

enum miss {
	MISS_DROP = 0,
	MISS_REDIRECT = 1,
	MISS_UPCALL = 2,
	MISS_PASS = 3,
};

enum op {
	OP_END = 0,
	OP_OUTPUT = 1,
	OP_PUSH_VLAN = 2,
	OP_POP_VLAN = 3,
	OP_MODIFY_VLAN = 4,
	OP_DROP = 5,
	OP_GOTO = 6,
	OP_UPCALL = 7,
	OP_PASS = 8,
	OP_TRUNCATE = 9,
	OP_SET = 10,
	OP_ENCAP = 11,
	OP_DECAP = 12,
	OP_SET_TUNNEL = 13,
	OP_ENTER = 14,
	OP_CLONE = 15,
	OP_SAMPLE = 16,
	OP_CHECK_LENGTH = 17,
	OP_DEC_TTL = 18,
	OP_HASH = 19,
	OP_SET_META = 20,
	OP_PUSH_MPLS = 21,
	OP_POP_MPLS = 22,
	OP_PUSH_ETHERNET = 23,
	OP_POP_ETHERNET = 24,
	OP_PUSH_NSH = 25,
	OP_POP_NSH = 26,
	OP_ADD = 27,
	OP_CT = 28,
	OP_CT_CLEAR = 29,
	OP_CT_HARDWARE = 30,
	OP_METER = 31,
	OP_PSAMPLE = 32,
	OP_LOOK_ON = 33,
	OP_CHANCE = 34,
	OP_SWAP_ETHERNET = 35,
	OP_SET_ETHERTYPE = 36,
	OP_CONGEST = 37,
};

enum layer {
	LAYER_ETHERNET = 0,
	LAYER_IPV4 = 1,
	LAYER_IPV6 = 2,
	LAYER_L4 = 3,
	LAYER_ADDRESS_LOW = 4,
	LAYER_MPLS = 5,
	LAYER_SCTP = 6,
};

enum drop {
	DROP_RULE = 0,
	DROP_MISS = 1,
	DROP_SHORT = 2,
	DROP_IN_PORT = 3,
	DROP_OUT_PORT = 4,
	DROP_LOOP = 5,
	DROP_ACTION = 6,
	DROP_TRUNCATE = 7,
	DROP_UPCALL = 8,
	DROP_OUTPUT = 9,
	DROP_COPY = 10,
};

enum width {
	WIDTH_NARROW = 0,
	WIDTH_WIDE = 1,
	WIDTH_TRACKED = 2,
	WIDTH_STATEFUL = 3,
};

enum event {
	EVENT_MATCH = 0,
	EVENT_SEND = 1,
	EVENT_UPCALL = 2,
	EVENT_PASS = 3,
	EVENT_DROP = 4,
	EVENT_SAMPLE = 5,
	EVENT_ENTER = 6,
	EVENT_ONWARD = 7,
	EVENT_NO_MATCH = 8,
	EVENT_TRACK = 9,
	EVENT_LEAVE = 10,
};

enum meter_flag {
	METER_ON = 1,
	METER_PACKETS = 2,
	METER_CELLS = 4,
};

enum counting {
	COUNT_WIRE = 0,
	COUNT_TC = 1,
	COUNT_OVS = 2,
};

enum ct_state {
	CT_NEW = 1,
	CT_EST = 2,
	CT_REL = 4,
	CT_RPL = 8,
	CT_INV = 16,
	CT_TRK = 32,
	CT_SNAT = 64,
	CT_DNAT = 128,
};

enum ct_flag {
	CT_COMMIT = 1,
	CT_FORCE = 2,
	CT_NAT = 4,
	CT_NAT_SRC = 8,
	CT_NAT_DST = 16,
	CT_NAT_ADDRESSES = 32,
	CT_NAT_PORTS = 64,
	CT_NAT_PERSISTENT = 128,
	CT_NAT_HASH = 256,
	CT_NAT_RANDOM = 512,
	CT_OFFLOAD = 1024,
	CT_EVENT_MASK = 2048,
	CT_MARK = 4096,
	CT_LABELS = 8192,
	CT_INSIDE = 16384,
};

enum ct_event_bit {
	CT_EVENT_NEW = 1,
	CT_EVENT_RELATED = 2,
	CT_EVENT_DESTROY = 4,
	CT_EVENT_REPLY = 8,
	CT_EVENT_ASSURED = 16,
	CT_EVENT_PROTOINFO = 32,
	CT_EVENT_HELPER = 64,
	CT_EVENT_MARK = 128,
	CT_EVENT_SEQADJ = 256,
	CT_EVENT_SECMARK = 512,
	CT_EVENT_LABEL = 1024,
	CT_EVENT_SYNPROXY = 2048,
};

enum sample_flag {
	SAMPLE_PROBABILITY = 1,
	SAMPLE_COUNTED = 2,
	SAMPLE_CUT = 4,
	SAMPLE_TUNNEL_IPV4 = 8,
	SAMPLE_TUNNEL_IPV6 = 16,
};

enum keep {
	KEEP_FORGET = 0,
	KEEP_EXPIRE = 1,
	KEEP_RECLAIM = 2,
	KEEP_STATUS = 3,
	KEEP_INSERT = 4,
};

enum ct_policy {
	POLICY_TCP = 1,
	POLICY_UDP = 2,
	POLICY_ICMP = 3,
	POLICY_ICMPV6 = 4,
	POLICY_SCTP = 5,
	POLICY_GRE = 6,
	POLICY_GENERIC = 7,
	POLICY_UDPLITE = 8,
};

enum ct_status {
	IPS_NONE = 0,
	IPS_EXPECTED = 1,
	IPS_SEEN_REPLY = 2,
	IPS_ASSURED = 4,
	IPS_CONFIRMED = 8,
	IPS_SRC_NAT = 16,
	IPS_DST_NAT = 32,
	IPS_SEQ_ADJUST = 64,
	IPS_SRC_NAT_DONE = 128,
	IPS_DST_NAT_DONE = 256,
	IPS_DYING = 512,
	IPS_FIXED_TIMEOUT = 1024,
	IPS_TEMPLATE = 2048,
	IPS_NAT_CLASH = 4096,
	IPS_HELPER = 8192,
	IPS_OFFLOAD = 16384,
	IPS_HW_OFFLOAD = 32768,
	IPS_NAT_MASK = 48,
};

/* What is in the same octets of all packets. */
#define FIELDS_HEAD \
	u8 eth_dst[6]; \
	u16 eth_type; \
	u8 eth_src[6]; \
	u16 vlan_tpid; \
	u16 vlan_tci; \
	u16 cvlan_tci; \
	u8 ip_proto; \
	u8 ip_tos; \
	u8 ip_ttl; \
	u8 ip_frag; \
	u8 cvlan_tpid; \
	u8 ipv6_label[3]; \
	u16 l4_src; \
	u16 l4_dst; \
	union { u8 ip_src[16]; u8 arp_sha[6]; }; \
	union { u8 ip_dst[16]; u8 arp_tha[6]; };

/* What connection tracking says of a packet. */
#define FIELDS_TRACKED \
	u8 ct_state; \
	u8 ct_proto; \
	u16 ct_zone; \
	u32 ct_mark; \
	u16 ct_tp_src; \
	u16 ct_tp_dst; \
	u8 room_140[4]; \
	u8 ct_labels[16]; \
	u8 ct_src[16]; \
	u8 ct_dst[16];
struct tracked {
	FIELDS_TRACKED
} __attribute__((aligned(8)));

/* What rules match on; network byte order. */
struct fields {
	FIELDS_HEAD
	union {
		struct {
			u8 plain_64[6];
			u16 tcp_flags;
			u8 plain_72[40];
			u32 dp_hash;
			u32 skb_mark;
			u32 skb_priority;
		};
		struct {
			u8 nd_sll[6];
			u8 nd_70[2];
			u8 nd_tll[6];
			u8 nd_78[2];
			u8 nd_target[16];
		};
		struct {
			u8 mpls_64[16];
			u32 mpls_lse1;
			u32 mpls_lse2;
			u32 mpls_lse3;
			u8 mpls_labels;
		};
		struct {
			u8 nsh_64[16];
			u8 nsh_flags;
			u8 nsh_ttl;
			u8 nsh_mdtype;
			u8 nsh_np;
			u32 nsh_path;
			u8 nsh_context[16];
		};
		struct {
			u8 tun_tos;
			u8 tun_ttl;
			u8 tun_id[4];
			u8 tunnel_70[2];
			u16 tun_flags;
			u8 tun_option[4];
			u16 tun_tp_dst;
			u8 tun_src[16];
			u8 tun_dst[16];
			u8 tunnel_112[14];
			u8 tun_opts_len;
			u8 tun_option_kind;
		};
		struct {
			u8 flags_64[60];
			u8 no_ethernet, in_tunnel;
		};
	};
	union {
		struct { FIELDS_TRACKED };
		struct tracked tracked;
	};
};
_Static_assert(__builtin_offsetof(struct fields, eth_dst) == 0, "eth_dst");
_Static_assert(__builtin_offsetof(struct fields, eth_type) == 6, "eth_type");
_Static_assert(__builtin_offsetof(struct fields, eth_src) == 8, "eth_src");
_Static_assert(__builtin_offsetof(struct fields, vlan_tpid) == 14, "vlan_tpid");
_Static_assert(__builtin_offsetof(struct fields, vlan_tci) == 16, "vlan_tci");
_Static_assert(__builtin_offsetof(struct fields, cvlan_tci) == 18, "cvlan_tci");
_Static_assert(__builtin_offsetof(struct fields, ip_proto) == 20, "ip_proto");
_Static_assert(__builtin_offsetof(struct fields, ip_tos) == 21, "ip_tos");
_Static_assert(__builtin_offsetof(struct fields, ip_ttl) == 22, "ip_ttl");
_Static_assert(__builtin_offsetof(struct fields, ip_frag) == 23, "ip_frag");
_Static_assert(__builtin_offsetof(struct fields, cvlan_tpid) == 24, "cvlan_tpid");
_Static_assert(__builtin_offsetof(struct fields, ipv6_label) == 25, "ipv6_label");
_Static_assert(__builtin_offsetof(struct fields, l4_src) == 28, "l4_src");
_Static_assert(__builtin_offsetof(struct fields, l4_dst) == 30, "l4_dst");
_Static_assert(__builtin_offsetof(struct fields, ip_src) == 32, "ip_src");
_Static_assert(__builtin_offsetof(struct fields, arp_sha) == 32, "arp_sha");
_Static_assert(__builtin_offsetof(struct fields, ip_dst) == 48, "ip_dst");
_Static_assert(__builtin_offsetof(struct fields, arp_tha) == 48, "arp_tha");
_Static_assert(__builtin_offsetof(struct fields, nd_sll) == 64, "nd_sll");
_Static_assert(__builtin_offsetof(struct fields, tun_tos) == 64, "tun_tos");
_Static_assert(__builtin_offsetof(struct fields, tun_ttl) == 65, "tun_ttl");
_Static_assert(__builtin_offsetof(struct fields, tun_id) == 66, "tun_id");
_Static_assert(__builtin_offsetof(struct fields, tcp_flags) == 70, "tcp_flags");
_Static_assert(__builtin_offsetof(struct fields, nd_tll) == 72, "nd_tll");
_Static_assert(__builtin_offsetof(struct fields, tun_flags) == 72, "tun_flags");
_Static_assert(__builtin_offsetof(struct fields, tun_option) == 74, "tun_option");
_Static_assert(__builtin_offsetof(struct fields, tun_tp_dst) == 78, "tun_tp_dst");
_Static_assert(__builtin_offsetof(struct fields, nd_target) == 80, "nd_target");
_Static_assert(__builtin_offsetof(struct fields, mpls_lse1) == 80, "mpls_lse1");
_Static_assert(__builtin_offsetof(struct fields, nsh_flags) == 80, "nsh_flags");
_Static_assert(__builtin_offsetof(struct fields, tun_src) == 80, "tun_src");
_Static_assert(__builtin_offsetof(struct fields, nsh_ttl) == 81, "nsh_ttl");
_Static_assert(__builtin_offsetof(struct fields, nsh_mdtype) == 82, "nsh_mdtype");
_Static_assert(__builtin_offsetof(struct fields, nsh_np) == 83, "nsh_np");
_Static_assert(__builtin_offsetof(struct fields, mpls_lse2) == 84, "mpls_lse2");
_Static_assert(__builtin_offsetof(struct fields, nsh_path) == 84, "nsh_path");
_Static_assert(__builtin_offsetof(struct fields, mpls_lse3) == 88, "mpls_lse3");
_Static_assert(__builtin_offsetof(struct fields, nsh_context) == 88, "nsh_context");
_Static_assert(__builtin_offsetof(struct fields, mpls_labels) == 92, "mpls_labels");
_Static_assert(__builtin_offsetof(struct fields, tun_dst) == 96, "tun_dst");
_Static_assert(__builtin_offsetof(struct fields, dp_hash) == 112, "dp_hash");
_Static_assert(__builtin_offsetof(struct fields, skb_mark) == 116, "skb_mark");
_Static_assert(__builtin_offsetof(struct fields, skb_priority) == 120, "skb_priority");
_Static_assert(__builtin_offsetof(struct fields, tun_opts_len) == 126, "tun_opts_len");
_Static_assert(__builtin_offsetof(struct fields, tun_option_kind) == 127, "tun_option_kind");
_Static_assert(__builtin_offsetof(struct fields, ct_state) == 128, "ct_state");
_Static_assert(__builtin_offsetof(struct fields, ct_proto) == 129, "ct_proto");
_Static_assert(__builtin_offsetof(struct fields, ct_zone) == 130, "ct_zone");
_Static_assert(__builtin_offsetof(struct fields, ct_mark) == 132, "ct_mark");
_Static_assert(__builtin_offsetof(struct fields, ct_tp_src) == 136, "ct_tp_src");
_Static_assert(__builtin_offsetof(struct fields, ct_tp_dst) == 138, "ct_tp_dst");
_Static_assert(__builtin_offsetof(struct fields, ct_labels) == 144, "ct_labels");
_Static_assert(__builtin_offsetof(struct fields, ct_src) == 160, "ct_src");
_Static_assert(__builtin_offsetof(struct fields, ct_dst) == 176, "ct_dst");
_Static_assert(sizeof(struct fields) == 192, "fields");

/* Words of a packed key, those of them that rules on IPv4 need, and those about connections: the last. */
#define WORDS 24
#define NARROW 6
#define REST 10
#define TRACKED 8
#define NARROW_AT(i) ((i) == 0 ? 0 : \
	(i) == 1 ? 1 : \
	(i) == 2 ? 2 : \
	(i) == 3 ? 3 : \
	(i) == 4 ? 5 : \
	7)
#define REST_AT(i) ((i) == 0 ? 4 : \
	(i) == 1 ? 6 : \
	(i) == 2 ? 8 : \
	(i) == 3 ? 9 : \
	(i) == 4 ? 10 : \
	(i) == 5 ? 11 : \
	(i) == 6 ? 12 : \
	(i) == 7 ? 13 : \
	(i) == 8 ? 14 : \
	15)

/* Parts of the hash of a key. */
#define HASH_SEED 0x1d8e4e27c47d124f
#define HASH_MIX 0x9e3779b97f4a7c15
#define HASH_NARROW ( \
	WORD(0) * 0x87c37b91114253d5 + \
	WORD(1) * 0x4cf5ad432745937f + \
	WORD(2) * 0x9ddfea08eb382d69 + \
	WORD(3) * 0xff51afd7ed558ccd + \
	WORD(5) * 0xbf58476d1ce4e5b9 + \
	WORD(7) * 0xd6e8feb86659fd93)
#define HASH_REST ( \
	WORD(4) * 0xc4ceb9fe1a85ec53 + \
	WORD(6) * 0x94d049bb133111eb + \
	WORD(8) * 0xa0761d6478bd642f + \
	WORD(9) * 0xe7037ed1a0b428db + \
	WORD(10) * 0x8ebc6af09c88c6e3 + \
	WORD(11) * 0x589965cc75374cc3 + \
	WORD(12) * 0xc6a4a7935bd1e995 + \
	WORD(13) * 0xc2b2ae3d27d4eb4f + \
	WORD(14) * 0x9fb21c651e98df25 + \
	WORD(15) * 0xd1b54a32d192ed03)
#define HASH_TRACKED ( \
	WORD(16) * 0xaef17502108ef2d9 + \
	WORD(17) * 0xf1357aea2e62a9c5 + \
	WORD(18) * 0xdb4f0b9175ae2165 + \
	WORD(19) * 0xbbe0563303a4615f + \
	WORD(20) * 0xa24baed4963ee407 + \
	WORD(21) * 0xd6d0e7f7a5c4b1a3 + \
	WORD(22) * 0xc6bc279692b5c323 + \
	WORD(23) * 0xe19b01aa9d42c633)
