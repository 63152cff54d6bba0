/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What was kept of a connection's life, on its way into the record of its end.
 * The room for a record holds an older one: all of it is written, also what
 * never was.
 */
#ifndef FOURWAVE_LIFE_H
#define FOURWAVE_LIFE_H

#define NOTHING(field) __builtin_memset(&(field), 0, sizeof(field))

/* In words of eight bytes: a struct of smaller ones would be copied by these. */
static __always_inline void copy_counts(struct tcp_counts *to, struct tcp_counts *from)
{
	u64 *words = (u64 *)to, *source = (u64 *)from;
	int i;

#pragma unroll
	for (i = 0; i < sizeof(*to) / sizeof(u64); i++)
		words[i] = source[i];
}

static __always_inline void give_halfway(struct conn_record *to, struct conn *conn)
{
	if (conn->fin_received_ns || conn->fin_acked_ns) {
		copy_counts(&to->at_halfway, &conn->at_halfway);
		to->ack_sent_ns = conn->ack_sent_ns;
	} else {
		NOTHING(to->at_halfway);
		to->ack_sent_ns = 0;
	}
}

static __always_inline void give_peer_fin(struct conn_record *to, struct conn *conn)
{
	if (conn->fin_received_ns) {
		to->ack_pending = conn->ack_pending;
		to->ack_pingpong = conn->ack_pingpong;
		to->ack_quick = conn->ack_quick;
		to->ack_ato_jiffies = conn->ack_ato_jiffies;
		to->oow_ack_time = conn->oow_ack_time;
	} else {
		to->ack_pending = 0;
		to->ack_pingpong = 0;
		to->ack_quick = 0;
		to->ack_ato_jiffies = 0;
		to->oow_ack_time = 0;
	}
	to->fin_clock_10us = conn->ack_flags & ACK_CLOCK_KNOWN ? conn->fin_clock_10us : 0;
}

static __always_inline void give_own_fin(struct conn_record *to, struct conn *conn)
{
	if (conn->fin_sent_ns) {
		copy_counts(&to->at_fin_sent, &conn->at_fin_sent);
		to->dup_fin = conn->dup_fin;
		to->closer = conn->closer;
	} else {
		NOTHING(to->at_fin_sent);
		to->dup_fin = 0;
		NOTHING(to->closer);
	}
}

static __always_inline void give_resets(struct conn_record *to, struct conn *conn)
{
	to->rst_flags = conn->rst_flags;
	if (conn->rst_flags) {
		to->rst_reason = conn->rst_reason;
		to->rst_sent_state = conn->rst_sent_state;
		to->rst_received_state = conn->rst_received_state;
		to->rst_sent_ns = conn->rst_sent_ns;
		to->rst_received_ns = conn->rst_received_ns;
	} else {
		to->rst_reason = 0;
		to->rst_sent_state = 0;
		to->rst_received_state = 0;
		to->rst_sent_ns = 0;
		to->rst_received_ns = 0;
	}
}

static __always_inline void give_life(struct conn_record *to, struct conn *conn)
{
	to->state = conn->state;
	to->flags = conn->flags;
	to->states_seen = conn->states_seen;
	to->cookie = conn->cookie;
	to->opened_ns = conn->opened_ns;
	to->established_ns = conn->established_ns;
	to->fin_received_ns = conn->fin_received_ns;
	to->fin_sent_ns = conn->fin_sent_ns;
	to->fin_acked_ns = conn->fin_acked_ns;
	to->ack_flags = conn->ack_flags;
	to->err_told = conn->err_told;
	give_halfway(to, conn);
	give_peer_fin(to, conn);
	give_own_fin(to, conn);
	give_resets(to, conn);
	if (conn->opener.flags)
		to->opener = conn->opener;
	else
		NOTHING(to->opener);
}

#endif
