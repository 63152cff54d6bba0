/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The connections that are followed, and finding one by its key. What follows
 * them and what takes the census share these maps: the loader sees to it.
 */
#ifndef FOURWAVE_CONN_FIND_H
#define FOURWAVE_CONN_FIND_H

/*
 * One connection from its first event to CLOSE. What of a conn_record is known
 * before that, four cache lines by the moment they are needed: a socket that
 * opens touches the first and the last, and nothing is written before it is
 * known. So only what the first line and `opener.flags` hold always means
 * something; the rest does where `fin_sent_ns`, `rst_flags` and so on say so.
 */
struct conn {
	u64 cookie; /* 0: the place is free */
	union {
		struct {
			u8 state;
			u8 rst_flags;
			u16 flags;
			u16 states_seen;
			u8 err_told;
			u8 ack_flags;
		};
		u64 seen; /* all of these at once */
	};
	u64 opened_ns;
	u64 established_ns;
	u64 fin_received_ns;
	u64 fin_sent_ns;
	u64 fin_acked_ns;
	u32 spilled; /* how many that would be here are further down */
	union {
		u32 claims; /* how many hold or try to take the place: see slot_take() */
		u32 gone;   /* of the cookie that ended last of those that would be here */
	};

	/* fin_sent_ns */
	struct tcp_counts at_fin_sent;
	u16 fin_clock_10us; /* ACK_CLOCK_KNOWN */
	u8 dup_fin;
	u8 tw_substate; /* while it closes */
	u32 doubted;	/* of the cookie that the last sweep found without its socket */
	/* rst_flags */
	u64 rst_sent_ns;
	u64 rst_received_ns;

	/* fin_received_ns or fin_acked_ns */
	struct tcp_counts at_halfway;
	u64 ack_sent_ns;
	u8 ack_pending;
	u8 ack_pingpong;
	u16 ack_ato_jiffies;
	u8 ack_quick;
	u8 old_state;	  /* while it closes */
	u16 out_of_order; /* what had come so by FIN_WAIT2 */
	u32 oow_ack_time;
	/* rst_flags */
	u8 rst_reason;
	u8 rst_sent_state;
	u8 rst_received_state;
	u8 by_segment; /* while it closes */

	/* fin_sent_ns */
	struct actor closer;
	struct actor opener;
	u64 sk; /* the socket's address, for the sweep only */
};

_Static_assert(sizeof(struct conn) == 256, "conn");
_Static_assert(offsetof(struct conn, at_fin_sent) == 64, "line 2");
_Static_assert(offsetof(struct conn, at_halfway) == 128, "line 3");
_Static_assert(offsetof(struct conn, closer) == 192, "line 4");

/*
 * A connection is known by its socket's cookie: socket addresses are recycled at
 * once, cookies never. Cookies are handed out in order, so cookie modulo a power
 * of two spreads well, and an array needs no hashing and no allocation. One
 * whose place is taken gets another place of the array, and after that one in
 * the hash, whose elements are allocated as they are needed and which CONN_MAX
 * only bounds. `spilled` says whether looking further is worth while.
 *
 * What can be mapped begins with a page, and so with a cache line.
 */
BPF_F_TABLE("array", u32, struct conn, slots, 2 * SLOTS, BPF_F_MMAPABLE);
BPF_F_TABLE("hash", u64, struct conn, conns, CONN_MAX, BPF_F_NO_PREALLOC);

static __always_inline struct conn *first_slot(u64 cookie)
{
	u32 index = cookie & (SLOTS - 1);

	return slots.lookup(&index);
}

static __always_inline struct conn *second_slot(u64 cookie)
{
	u32 index = SLOTS + ((cookie ^ cookie / SLOTS) & (SLOTS - 1));

	return slots.lookup(&index);
}

static __always_inline struct conn *conn_find(u64 cookie)
{
	struct conn *slot;

	if (!cookie)
		return NULL;
	slot = first_slot(cookie);
	if (!slot || slot->cookie == cookie)
		return slot;
	if (!slot->spilled)
		return NULL;
	slot = second_slot(cookie);
	if (!slot || slot->cookie == cookie)
		return slot;
	return slot->spilled ? conns.lookup(&cookie) : NULL;
}

#endif
