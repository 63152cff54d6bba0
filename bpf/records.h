/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The wire format: everything the kernel side says crosses here, and nothing
 * else does. This file parses on its own, without kernel types, so that a test
 * can compile it with cc and compare every offset with tracer/wire.py.
 *
 * A record carries evidence, never a verdict: counters, flags and times as the
 * kernel held them at the moment named. Python decides (tracer/classify.py), so
 * a recording can be judged again by a later version.
 *
 * All records have one size. The resident decodes everything that has arrived
 * in the ring as one strided array, without walking it record by record.
 *
 * Times are CLOCK_MONOTONIC nanoseconds; 0 means "never seen". Ports and
 * addresses: ports in host order, addresses as 16 bytes, IPv4 mapped into
 * ::ffff:0:0/96. Names are the kernel's own bytes, untrusted.
 */
#ifndef FOURWAVE_RECORDS_H
#define FOURWAVE_RECORDS_H

#define WIRE_VERSION 2
#define COMM_LEN 16

typedef unsigned char fw_u8;
typedef unsigned short fw_u16;
typedef unsigned int fw_u32;
typedef unsigned long long fw_u64;

enum record_type {
	RECORD_CLOSE = 1,   /* a socket reached TCP_CLOSE: the whole record */
	RECORD_RESET = 2,   /* a RST we sent after the close's own record had left: only
			   * cookie, closed_ns (when it was sent) and the rst_* fields
			   * mean anything */
	RECORD_SIGPIPE = 3, /* SIGPIPE for a send after the close's own record had left: only
			     * cookie, closed_ns (when it was raised) and CONN_SIGPIPE */
};

/* conn_record.flags */
enum conn_flag {
	CONN_OPENED_ACTIVE = 1 << 0,  /* CLOSE->SYN_SENT was seen */
	CONN_OPENED_PASSIVE = 1 << 1, /* LISTEN->SYN_RECV was seen */
	CONN_GAP = 1 << 2,	      /* a transition of this socket was missed */
	CONN_MPTCP_SUBFLOW = 1 << 3,
	CONN_CLOSE_OWNED = 1 << 4,     /* a process held the socket lock at CLOSE */
	CONN_FIN_ACKED_OWNED = 1 << 5, /* the same at FIN_WAIT1->FIN_WAIT2: the
					* segment may come from the backlog */
	CONN_MAY_FOLLOW = 1 << 6,      /* a RST of ours may follow, or SIGPIPE: then a
					 * RECORD_RESET or RECORD_SIGPIPE does, too */
	CONN_RECLOSED = 1 << 7,	       /* close() came after shutdown() */
	CONN_OLD_ANSWERED = 1 << 8,    /* a bare ACK in CLOSE_WAIT answered an old one */
	CONN_DROPPED = 1 << 9,	       /* a segment of the peer's was dropped: one that came
					 * twice, or one there was no memory for */
	CONN_SIGPIPE = 1 << 10,	       /* a send on this socket raised SIGPIPE */
	CONN_REPAIR = 1 << 11,	       /* in repair mode (TCP_REPAIR) at CLOSE */
};

/* What sk->sk_socket->file was when somebody acted on the socket. */
enum file_ref {
	FILE_NONE = 0,	/* no struct socket: never accepted, or already orphaned */
	FILE_ALIVE = 1, /* still referenced: shutdown(), connect(AF_UNSPEC) */
	FILE_DEAD = 2,	/* last reference dropped: close() or process exit */
};

/* actor.flags */
enum actor_flag {
	ACTOR_VALID = 1 << 0,
	ACTOR_EXITING = 1 << 1,	   /* PF_EXITING: the kernel closes for a dying process */
	ACTOR_KTHREAD = 1 << 2,	   /* PF_KTHREAD: a worker acts for somebody unknown */
	ACTOR_IN_SOFTIRQ = 1 << 3, /* not the lock owner: current is a bystander */
	ACTOR_ACCEPTED = 1 << 4,   /* the opener of a passive open: see there */
};

/* conn_record.rst_flags */
enum rst_flag {
	RST_SENT_ACTIVE = 1 << 0,      /* tcp_send_active_reset: skb == NULL */
	RST_SENT_REPLY = 1 << 1,       /* tcp_v4/6_send_reset: answers a segment */
	RST_SENT_AFTER_CLOSE = 1 << 2, /* sk_state was already TCP_CLOSE */
	RST_RECEIVED = 1 << 3,	       /* tcp_receive_reset fired (also on data after close) */
	RST_HAS_REASON = 1 << 4,       /* this kernel passes enum sk_rst_reason */
};

/* conn_record.ack_flags: what decides when the ACK of the peer's FIN leaves. The
 * first three are of ->CLOSE_WAIT, the others of ->LAST_ACK, looked at only where
 * the FIN was acknowledged by then. */
enum ack_flag {
	ACK_FILLS_HOLE = 1 << 0,  /* segments waited for the one in hand: RFC 5681, 4.2 */
	ACK_FULL_FRAME = 1 << 1,  /* more unacknowledged than one full-sized segment */
	ACK_DATA_UNREAD = 1 << 2, /* reading it sets TCP's clock, too */
	ACK_ROUTE_QUICK = 1 << 3, /* the route says quickack 1 */
	ACK_CLOCK_KNOWN = 1 << 4, /* fin_clock_10us means something */
	ACK_CLOCK_MOVED = 1 << 5, /* TCP's clock was set after the FIN came */
};

/* Values of conn_record.tw_substate besides TCP_FIN_WAIT2 (5) and TCP_TIME_WAIT (6). */
enum tw_lookup {
	TW_NONE = 0,	     /* the hash bucket was walked: no mini-socket */
	TW_NOT_LOOKED = 255, /* no reason to look, or the walk could not end */
};

struct actor {
	fw_u32 tgid;
	fw_u32 uid;
	fw_u16 exit_code; /* task_struct.exit_code; means something with ACTOR_EXITING */
	fw_u8 flags;	  /* enum actor_flag */
	fw_u8 file_ref;	  /* enum file_ref */
	fw_u8 comm[COMM_LEN];
};

/* What the sequence space and the segment counters were at one moment. */
struct tcp_counts {
	fw_u32 segs_in;
	fw_u32 segs_out;
	fw_u32 data_segs_in;
	fw_u32 data_segs_out;
	fw_u32 total_retrans;
	fw_u32 rcv_nxt;
	fw_u32 rcv_unacked; /* rcv_nxt - rcv_wup: received, not yet acknowledged by any segment */
	fw_u32 unsent;	    /* write_seq - snd_nxt */
	fw_u32 unacked;	    /* snd_nxt - snd_una */
	fw_u32 snd_wnd;
};

/*
 * What a verdict is made of comes first, in half of the record: a column of a
 * batch costs a cache line per record, and the columns that are always read share
 * three. With the ring's own 8 bytes a record is six lines.
 */
struct conn_record {
	fw_u8 type;		    /* enum record_type */
	fw_u8 family;		    /* 4 or 6; IPv4-mapped is 4 */
	fw_u8 state;		    /* last state stored by the tracer (TCP_CLOSE here) */
	fw_u8 old_state;	    /* the state before CLOSE */
	fw_u16 flags;		    /* enum conn_flag */
	fw_u16 states_seen;	    /* mask of 1 << state */
	fw_u64 cookie;		    /* the socket's: joins RECORD_RESET to its close */
	fw_u8 sk_shutdown;	    /* at CLOSE, before tcp_done() sets 3 */
	fw_u8 sk_flags;		    /* at CLOSE, bits: DEAD 0, DONE 1, KEEPOPEN 3, LINGER 4 */
	fw_u8 tw_substate;	    /* 5, 6 or enum tw_lookup */
	fw_u8 close_actor_file_ref; /* enum file_ref at CLOSE itself */
	fw_u8 rst_flags;	    /* enum rst_flag */
	fw_u8 rst_reason;	    /* enum sk_rst_reason of the running kernel */
	fw_u8 rst_sent_state;	    /* sk_state when we sent it */
	fw_u8 rst_received_state;   /* sk_state when it came */
	fw_u8 probes_out;
	fw_u8 retransmits;
	fw_u8 dup_fin;	   /* 1: duplicate_sack[0] ends at the FIN: the peer repeated it */
	fw_u8 ack_pending; /* icsk_ack at ->CLOSE_WAIT, "the peer's FIN in hand" */
	fw_u8 ack_pingpong;
	fw_u8 ack_quick;
	fw_u16 ack_ato_jiffies;
	fw_u16 sk_err;
	fw_u16 lport;
	fw_u16 rport;
	fw_u16 out_of_order;	   /* segments that came so from FIN_WAIT2 to CLOSE, the one that
				    * acknowledged our FIN included */
	int linger2;		   /* TCP_LINGER2 in jiffies; negative: no FIN_WAIT2 */
	fw_u32 lingertime_jiffies; /* saturated */
	fw_u32 user_timeout_ms;
	fw_u32 unread; /* rcv_nxt - copied_seq at CLOSE; an unread FIN counts one */

	/* The first of two FINs dealt with: the peer's taken (->CLOSE_WAIT, ->CLOSING),
	 * or ours acknowledged (FIN_WAIT1->FIN_WAIT2). No connection passes both. */
	struct tcp_counts at_halfway;
	struct tcp_counts at_fin_sent; /* ->FIN_WAIT1, ->LAST_ACK */
	struct tcp_counts at_close;

	fw_u64 closed_ns;
	fw_u64 opened_ns; /* connect(), or the handshake's last ACK */
	fw_u64 established_ns;
	fw_u64 fin_received_ns; /* ->CLOSE_WAIT, ->CLOSING, FIN_WAIT2->CLOSE with SOCK_DONE */
	fw_u64 fin_sent_ns;	/* ->FIN_WAIT1, ->LAST_ACK: the FIN was queued */
	fw_u64 fin_acked_ns;	/* FIN_WAIT1->FIN_WAIT2; == closed_ns: one skb did both */
	fw_u64 ack_sent_ns;	/* the ACK of the peer's FIN left; 0: nobody looked */
	fw_u64 rst_sent_ns;
	fw_u64 rst_received_ns;

	struct actor closer; /* who queued our FIN; else who was in the way of CLOSE */
	struct actor opener; /* who called connect(); with ACTOR_ACCEPTED, accept(): then
			      * opener.uid is how many microseconds after opened_ns,
			      * saturated. That process's uid is sk_uid, which is uid. */

	fw_u8 saddr[16];
	fw_u8 daddr[16];
	fw_u64 bytes_sent;     /* payload, without retransmissions */
	fw_u64 bytes_received; /* the FIN counts one */
	fw_u64 cgroup_id;      /* kernfs id of the socket's cgroup v2, 0 unknown */
	fw_u32 netns;	       /* inum */
	fw_u32 uid;	       /* sk_uid */
	fw_u32 oow_ack_time;   /* last_oow_ack_time at ->CLOSE_WAIT: CONN_OLD_ANSWERED */
	fw_u16 fin_clock_10us; /* from the peer's FIN to the last time TCP's clock was
				* set before ->LAST_ACK; saturated */
	fw_u8 ack_flags;       /* enum ack_flag */
	fw_u8 err_told;	       /* the first error the application was told; 0 none, or none seen */
};

/* stray_key.cause: what was there instead of a connection */
enum stray {
	STRAY_NONE = 0,	     /* a connection was */
	STRAY_NO_SOCKET = 1, /* nothing listens there, or what did is gone */
	STRAY_TIME_WAIT = 2, /* a mini-socket: data or a SYN it cannot take */
	STRAY_HANDSHAKE = 3, /* a listener or a request: an ACK of nothing, a broken SYN */
};

/* RSTs without a connection are counted by what they answered. */
struct stray_key {
	fw_u32 netns; /* inum; 0 not known */
	fw_u16 lport;
	fw_u8 reason; /* enum sk_rst_reason of the running kernel; 0 also if it has none */
	fw_u8 cause;  /* enum stray */
};

/* Index of time_waits.changes: what became of mini-sockets, where hooks can tell. */
enum tw_change {
	CHANGE_PEER_FIN = 0,	       /* from FIN_WAIT2 to TIME_WAIT, by the peer's FIN */
	CHANGE_RESTARTED_BY_FIN = 1,   /* 60 s begin again: the peer repeated its FIN */
	CHANGE_RESTARTED_BY_OTHER = 2, /* by another segment */
	CHANGE_ENDED_BY_RST = 3,
	CHANGE_ENDED_BY_SYN = 4,  /* a new connection; in FIN_WAIT2 answered by a RST */
	CHANGE_ENDED_BY_DATA = 5, /* in FIN_WAIT2: data nobody can read, answered by a RST */
	CHANGE_REUSED = 6,	  /* connect() took its ports */
	CHANGE_DESTROYED = 7,	  /* ss -K, or the network namespace is gone */
};

/* Totals since attach of one CPU, and the note of who looked at a mini-socket last. */
struct time_waits {
	fw_u64 changes[8]; /* by enum tw_change */
	fw_u64 looked_at;  /* address of a mini-socket, 0 none */
	fw_u32 looked_by;  /* a segment's flags, or LOOKED_CONNECT */
	fw_u32 substate;   /* tw_substate when the segment came */
	fw_u64 unused[6];  /* CPUs share no cache line */
};

/*
 * One slot per possible CPU in an mmapable array: the resident reads them
 * without a system call. Each is a total since attach; every close the kernel
 * side knows of is in exactly one of emitted, ring_full, conn_map_full, unseen.
 */
struct counters {
	fw_u64 emitted[2];	/* records that left for the ring: by process, by softirq */
	fw_u64 ring_full;	/* closes lost: no room in the ring */
	fw_u64 conn_map_full;	/* closes lost: no room for the connection */
	fw_u64 unseen;		/* closes lost: the socket is gone, its CLOSE never came */
	fw_u64 second_children; /* of one request, undone at once: no closes */
	fw_u64 unknown_sockets; /* first seen after they were opened */
	fw_u64 gaps;		/* `old` differed from the stored state */
	fw_u64 taken_over;	/* events the twin handled: the first was interrupted */
	fw_u64 resets_amended;	/* RECORD_RESET sent */
	fw_u64 resets_lost;	/* RECORD_RESET that found no room */
	fw_u64 strays_lost;	/* RSTs without a connection: no room to tell them apart */
	fw_u64 last_closed[2];	/* cookies, for the twin: by process, by softirq */
	fw_u64 last_reset[2];	/* or the segment a RST without a connection answered */
};

_Static_assert(sizeof(struct conn_record) == 376, "conn_record");
_Static_assert(sizeof(struct actor) == 28, "actor");
_Static_assert(sizeof(struct tcp_counts) == 40, "tcp_counts");
_Static_assert(sizeof(struct stray_key) == 8, "stray_key");
_Static_assert(sizeof(struct counters) == 128, "counters");
_Static_assert(sizeof(struct time_waits) == 128, "time_waits");

#endif
