/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a census hands to the resident: rows through the iterators' own files,
 * tallies through maps. Like records.h this file parses without kernel types;
 * tests/unit/test_census_wire.py compares every offset with tracer/census.py.
 */
#ifndef FOURWAVE_CENSUS_H
#define FOURWAVE_CENSUS_H

#define REMAINING_STEP_S 5
#define REMAINING_STEPS 12
#define PORT_COUNT 65536

enum socket_flag {
	SOCKET_HAS_SOCKET = 1 << 0,
	SOCKET_DEAD = 1 << 1,
};

/* One socket worth a look. */
struct socket_row {
	fw_u64 cookie;
	fw_u64 ino;
	fw_u64 cgroup_id;
	fw_u64 bytes_received;
	fw_u64 bytes_acked;
	fw_u64 drops;
	fw_u64 close_wait_ns;	   /* CLOCK_MONOTONIC of its beginning; 0: not seen */
	long long age_received_ms; /* -1: unknown */
	long long age_data_received_ms;
	long long age_sent_ms;
	long long oldest_wait_ms; /* LISTEN: of the first in the accept queue; -1: unknown */
	fw_u8 laddr[16];
	fw_u8 raddr[16];
	fw_u32 netns;
	fw_u32 uid;
	fw_u32 unread;
	fw_u32 unsent;
	fw_u32 unacked;
	fw_u32 accept_queue;
	fw_u32 accept_queue_limit;
	fw_u32 syn_queue;
	fw_u16 lport;
	fw_u16 rport;
	fw_u8 state;
	fw_u8 family;
	fw_u8 shutdown;
	fw_u8 flags; /* enum socket_flag */
};

/* Who holds a socket by which descriptor. */
struct owner_row {
	fw_u64 ino;
	fw_u64 start_ns; /* of the process, CLOCK_BOOTTIME */
	fw_u32 tgid;
	fw_u32 fd;
	fw_u8 comm[COMM_LEN];
	fw_u32 netns;
	fw_u8 state;
	fw_u8 pad[3];
};

/* What on_file() tells of: masks of 1 << state. */
struct wanted {
	fw_u32 rows;
	fw_u32 users;
	fw_u64 room;	       /* for so many rows more */
	fw_u64 rows_left_out;  /* descriptors there was no room for */
	fw_u64 users_left_out; /* sockets not counted: their map was full */
};

/* A descriptor of some socket of a namespace: it can be entered by that. */
struct home {
	fw_u32 tgid;
	fw_u32 fd;
};

/* A service: where somebody listens. */
struct service_key {
	fw_u32 netns;
	fw_u32 lport;
};

/* A process and a destination it is connected to. */
struct user_key {
	fw_u8 laddr[16];
	fw_u8 raddr[16];
	fw_u32 netns;
	fw_u32 tgid;
	fw_u16 rport;
	fw_u8 family;
	fw_u8 pad;
};

struct user_tally {
	fw_u64 start_ns; /* as in struct owner_row */
	fw_u8 comm[COMM_LEN];
	fw_u32 count;
	fw_u8 pad[4];
};

struct state_key {
	fw_u64 cgroup_id;
	fw_u8 state;
	fw_u8 inbound;
	fw_u8 pad[6];
};

/* A destination (lport 0) or a service (addresses and rport 0). */
struct port_key {
	fw_u8 laddr[16];
	fw_u8 raddr[16];
	fw_u16 lport;
	fw_u16 rport;
	fw_u8 family;
	fw_u8 inbound;
	fw_u8 pad[2];
};

struct port_tally {
	fw_u32 in_use;
	fw_u32 time_wait;
	fw_u32 fin_wait2;
	fw_u32 in_range;
	fw_u32 remaining[REMAINING_STEPS];
};

/* One walk over one namespace: written by the resident before, read after. */
struct walk {
	fw_u32 netns;
	fw_u32 port_first; /* ip_local_port_range */
	fw_u32 port_last;
	fw_u32 rows;	   /* mask of 1 << state: which sockets become rows */
	fw_u32 there;	   /* full sockets of the namespace; 0: not known */
	fw_u32 listened;   /* of these shown in LISTEN so far */
	fw_u32 handshakes; /* in the queues of those */
	fw_u32 ended;	   /* all were shown, `last` was the last */
	fw_u32 piece;	   /* sockets between two pauses */
	fw_u32 shown;	   /* since the last pause */
	struct socket_row last;
	fw_u64 room;		/* for so many rows more, listening sockets apart */
	fw_u64 rows_left_out;	/* sockets there was no room for; they are counted */
	fw_u64 states_left_out; /* sockets not counted: their map was full */
	fw_u64 ports_left_out;
	fw_u64 minis[2][2]; /* of TIME_WAIT: [substate is TIME_WAIT][inbound] */
	fw_u64 requests[2]; /* NEW_SYN_RECV: [inbound] */
	fw_u8 listening[PORT_COUNT / 8];
};

#endif
