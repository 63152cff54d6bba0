// SPDX-License-Identifier: GPL-2.0
/*
 * How every TCP connection of this host ends: one record per closed socket.
 *
 * The programs are BTF-typed raw tracepoints (tp_btf): fields load directly,
 * which keeps a run near a hundred nanoseconds. That matters for more than
 * speed. __bpf_trace_run() refuses to run a program on a CPU where that program
 * is already running, and TCP changes state in process context with softirqs
 * enabled: a segment that arrives at the wrong nanosecond would go unseen.
 * What follows states and RSTs is therefore attached twice. The first sees all
 * events but those that interrupt it; the twin sees these, and finds by the
 * state stored in the connection that the first has already dealt with all
 * others. on_error_report only adds to what a record says, and has no twin;
 * on_sweep is attached to nothing: the resident runs it.
 *
 * A record holds evidence only. What it means is decided in Python.
 */
#include "records.h"
#include "compat.h"
#include "address.h"
#include "count.h"
#include "conn_find.h"
#include "evidence.h"
#include "delayed_ack.h"
#include "life.h"
#include "rings.h"
#include "conn.h"
#include "hooks.h"
#include "accept.h"
#include "time_wait.h"
#include "strays.h"
#include "descriptor.h"
#include "sigpipe.h"

/* Of a field: read now, not kept in a register. The verifier would follow each
 * value that a test has told it through all that comes after. */
#define AFRESH(field) (*(volatile typeof(field) *)&(field))

static __always_inline void on_close(struct conn_record *to, struct conn *conn, struct sock *sk,
				     struct tcp_sock *tp, u64 now)
{
	/* Before the record is written: it is room until then. */
	conn->tw_substate = TW_NOT_LOOKED;
	if (AFRESH(conn->old_state) == TCP_FIN_WAIT2 || AFRESH(conn->old_state) == TCP_CLOSING)
		conn->tw_substate = find_time_wait(sk, (struct inet_timewait_sock *)to);
	give_life(to, conn);
	take_end(to, sk, tp);
	to->type = RECORD_CLOSE;
	to->closed_ns = now;
	to->old_state = AFRESH(conn->old_state);
	to->tw_substate = conn->tw_substate;
	to->out_of_order = 0;
	if (AFRESH(conn->old_state) == TCP_FIN_WAIT2 && to->sk_flags & SK_FLAG_DONE) {
		to->fin_received_ns = now;
		to->out_of_order = tp->rcv_ooopack - (conn->fin_acked_ns ? conn->out_of_order : 0);
	}
	if (sk->lock_owned)
		to->flags |= CONN_CLOSE_OWNED;
}

/* Did whoever runs now make this CLOSE? close() that resets, disconnect and
 * ss -K do; they come after shutdown() too, and then name another actor than
 * the one who queued the FIN. */
static __always_inline bool is_own_act(struct conn_record *record, bool by_segment)
{
	if (!(record->flags & CONN_CLOSE_OWNED))
		return false;
	if (!(record->closer.flags & ACTOR_VALID))
		return true;
	return !by_segment && !(record->sk_flags & SK_FLAG_DEAD) &&
	       (!record->sk_err || record->sk_err == ECONNABORTED);
}

/* What the change means: when, and which counters and whose name belong to that
 * moment. One copy of the reading code serves them all. */
static __always_inline void on_new_state(struct conn *conn, struct sock *sk, struct tcp_sock *tp,
					 struct counters *slot, u64 old, u64 new, u64 now,
					 bool by_segment)
{
	struct conn_record *record = NULL;
	struct tcp_counts *moment = NULL;
	struct actor *actor = NULL;
	u64 has_record = 0;

	if (conn->flags & CONN_OPENED_PASSIVE && !conn->opened_ns)
		conn->opened_ns = now;
	switch (new) {
	case TCP_SYN_SENT:
		actor = &conn->opener;
		conn->opened_ns = now;
		break;
	case TCP_ESTABLISHED: conn->established_ns = now; break;
	case TCP_FIN_WAIT1:
	case TCP_LAST_ACK:
		/* The FIN is queued here, in the process that asked for it. */
		conn->fin_sent_ns = now;
		conn->dup_fin = tp->dup_sack_end == tp->rcv_nxt;
		if (new == TCP_LAST_ACK) {
			take_old_answered(conn, tp);
			take_ack_of_fin(conn, tp);
		}
		moment = &conn->at_fin_sent;
		actor = &conn->closer;
		break;
	case TCP_FIN_WAIT2:
		conn->fin_acked_ns = now;
		conn->ack_sent_ns = 0;
		/* The segment in hand is queued after this. */
		conn->out_of_order = tp->rcv_ooopack;
		if (sk->lock_owned)
			conn->flags |= CONN_FIN_ACKED_OWNED;
		moment = &conn->at_halfway;
		break;
	case TCP_CLOSE_WAIT:
	case TCP_CLOSING:
		conn->fin_received_ns = now;
		conn->ack_sent_ns = 0;
		take_delayed_ack(conn, tp);
		moment = &conn->at_halfway;
		break;
	case TCP_CLOSE:
		record = reserve();
		if (!record) {
			COUNT(slot, ring_full);
			break;
		}
		has_record = 1;
		conn->old_state = old;
		conn->by_segment = by_segment;
		on_close(record, conn, sk, tp, now);
		moment = &record->at_close;
		if (is_own_act(record, AFRESH(conn->by_segment)))
			actor = &record->closer;
		break;
	}
	if (moment)
		take_counts(moment, tp);
	if (actor)
		take_actor(actor, sk);
	/* Room in a ring, once it was found to be there, may be NULL again to the
	 * verifier of v5.10, and then nobody has given it back. A number may not. */
	asm volatile("" : "+r"(has_record));
	if (has_record)
		emit(record, sk, slot, AFRESH(conn->by_segment));
	if (AFRESH(conn->state) == TCP_CLOSE) {
		note_closed(slot, sk);
		conn_release(conn);
	}
}

/*
 * Is this the second child of one request, undone before anybody saw it? When the
 * ACK of the handshake comes twice at once, inet_ehash_nolisten() finds the place of
 * one taken. It alone goes to CLOSE past tcp_set_state(), which would have put the
 * port, and without SOCK_DEAD, which tcp_done() is never called without on a child.
 */
static __always_inline bool is_second_child(struct sock *sk, u64 old, u64 new)
{
	return old == TCP_SYN_RECV && new == TCP_CLOSE && sk->skc_num &&
	       !(sk->skc_flags & SK_FLAG_DEAD);
}

static __always_inline void on_second_child(struct counters *slot, struct sock *sk)
{
	give_cookie(sk);
	COUNT(slot, second_children);
	note_closed(slot, sk);
}

int on_set_state(u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	u64 old = ctx[1], new = ctx[2], now;
	bool connecting = new == TCP_SYN_SENT;
	struct counters *slot;
	struct tcp_sock *tp;
	struct conn *conn;
	bool by_segment;

	/* A child's LISTEN->SYN_RECV tells nothing its next change does not. */
	if (new == TCP_LISTEN || old == TCP_LISTEN || (old == TCP_CLOSE && !connecting)) {
		address_is_new(sk);
		return 0;
	}
	conn = conn_find(key_of(sk));
	/* The other copy was here first: see the top of the file. */
	if (conn && conn->state == new && (old != new || conn->flags & CONN_RECLOSED))
		return 0;
	slot = counters();
	if (!slot || (!conn && new == TCP_CLOSE && is_noted_closed(slot, sk)))
		return 0;
	/* NULL for what is not TCP: MPTCP's own socket, DCCP. */
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return 0;
	if (!conn && is_second_child(sk, old, new)) {
		on_second_child(slot, sk);
		return 0;
	}
	if (connecting || !conn)
		conn = conn_start(conn, sk, tp, slot, old, new);
	if (!conn) {
		if (new == TCP_CLOSE) {
			COUNT(slot, conn_map_full);
			note_closed(slot, sk);
		}
		return 0;
	}
	if (is_twin())
		COUNT(slot, taken_over);
	if (conn->state != old) {
		conn->flags |= CONN_GAP;
		COUNT(slot, gaps);
	}
	conn->state = new;
	conn->states_seen |= 1 << new;
	by_segment = is_by_segment(sk, tp, old, new);
	now = time_of(tp, by_segment);
	if (old == new)
		conn->flags |= CONN_RECLOSED;
	else
		on_new_state(conn, sk, tp, slot, old, new, now, by_segment);
	return 0;
}

/*
 * Whose RST this is. It may also concern no socket at all (NULL), a mini-socket
 * or a request; a mini-socket bears the cookie of the socket it replaced, whose
 * own end this is not.
 */
static __always_inline u64 cookie_of_full_socket(struct sock *sk)
{
	u8 state;

	if (!sk)
		return 0;
	state = sk->skc_state;
	if (state == TCP_TIME_WAIT || state == TCP_NEW_SYN_RECV)
		return 0;
	return key_of(sk);
}

static __always_inline u8 reset_flags(u64 *ctx, u8 state)
{
	u8 flags = ctx[1] ? RST_SENT_REPLY : RST_SENT_ACTIVE;

#ifdef HAS_RST_REASON
	flags |= RST_HAS_REASON;
#endif
	return flags | (state == TCP_CLOSE ? RST_SENT_AFTER_CLOSE : 0);
}

static __always_inline u8 reset_reason(u64 *ctx)
{
#ifdef HAS_RST_REASON
	return ctx[2];
#else
	return 0;
#endif
}

/* The first of a connection: what the fields of the other kind mean. */
static __always_inline void begin_resets(struct conn *conn)
{
	if (conn->rst_flags)
		return;
	conn->rst_sent_ns = 0;
	conn->rst_received_ns = 0;
	conn->rst_reason = 0;
	conn->rst_sent_state = 0;
	conn->rst_received_state = 0;
}

static __always_inline void take_reset(struct conn *conn, u64 *ctx)
{
	begin_resets(conn);
	if (conn->rst_sent_ns)
		return;
	conn->rst_sent_ns = bpf_ktime_get_ns();
	conn->rst_sent_state = conn->state;
	conn->rst_flags |= reset_flags(ctx, conn->state);
	conn->rst_reason = reset_reason(ctx);
}

/* The record has left without this RST: send what it takes to join them. One
 * ring does for all CPUs. */
static __always_inline void amend(struct counters *slot, u64 cookie, u64 *ctx)
{
	struct conn_record *late = closes_0.ringbuf_reserve(sizeof(*late));

	if (!late) {
		COUNT(slot, resets_lost);
		return;
	}
	__builtin_memset(late, 0, sizeof(*late));
	late->type = RECORD_RESET;
	late->cookie = cookie;
	late->state = TCP_CLOSE;
	late->rst_sent_state = TCP_CLOSE;
	late->rst_sent_ns = bpf_ktime_get_ns();
	late->closed_ns = late->rst_sent_ns;
	late->rst_flags = reset_flags(ctx, TCP_CLOSE);
	late->rst_reason = reset_reason(ctx);
	closes_0.ringbuf_submit(late, 0);
	COUNT(slot, resets_amended);
}

/* (sk, skb, reason); skb == NULL means nothing asked for this RST but
 * ourselves. Before CLOSE the first RST is the one that counts, so the twin may
 * run for the same event. */
int on_send_reset(u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	u64 cookie = cookie_of_full_socket(sk);
	struct counters *slot = counters();
	struct conn *conn = conn_find(cookie);
	u8 stray = stray_cause(sk);

	if (slot && stray)
		count_stray(slot, ctx, stray);
	if (!cookie || !slot || stray)
		return 0;
	if (!conn) {
		if (sk->skc_state != TCP_CLOSE || is_noted(slot->last_reset, sk))
			return 0;
		amend(slot, cookie, ctx);
		note(slot->last_reset, sk);
		return 0;
	}
	/* An answer to a segment that did not fit the handshake ends nothing. */
	if (ctx[1] && (conn->state == TCP_SYN_SENT || conn->state == TCP_SYN_RECV))
		return 0;
	take_reset(conn, ctx);
	return 0;
}

int on_receive_reset(u64 *ctx)
{
	struct conn *conn = conn_find(cookie_of_full_socket((struct sock *)ctx[0]));

	if (!conn || conn->rst_flags & RST_RECEIVED)
		return 0;
	begin_resets(conn);
	conn->rst_received_ns = bpf_ktime_get_ns();
	conn->rst_received_state = conn->state;
	conn->rst_flags |= RST_RECEIVED;
	return 0;
}

/* What the application is told when it asks: poll() and the next call. At CLOSE
 * sk_err still says it, unless it was taken or put away before. */
int on_error_report(u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	struct conn *conn = conn_find(cookie_of_full_socket(sk));

	if (conn && !conn->err_told)
		conn->err_told = sk->sk_err;
	return 0;
}

/* Freed memory of a socket keeps its bytes until it is used again: a socket
 * that still bears its cookie is gone all the same once it is in CLOSE. */
static __always_inline bool is_socket_gone(struct conn *conn)
{
	struct sock *sk = (struct sock *)conn->sk;
	u8 state = 0;

	bpf_probe_read_kernel(&state, sizeof(state), (void *)&sk->skc_state);
	return probed_key_of(sk) != conn->cookie || state == TCP_CLOSE;
}

/*
 * Look at SWEEP_SLOTS slots from ctx[0] on for connections whose socket is gone
 * although no program was run for its end, and count these. Never attached: the
 * resident runs it now and then. A socket may be on its way from or to CLOSE
 * right now, so it takes two sweeps that agree.
 */
int on_sweep(u64 *ctx)
{
	struct counters *slot = counters();
	u32 first = ctx[0], i;

	if (!slot)
		return 0;
	for (i = 0; i < SWEEP_SLOTS; i++) {
		u32 index = first + i;
		struct conn *conn = slots.lookup(&index);

		if (!conn)
			break;
		if (!conn->cookie || !is_socket_gone(conn))
			continue;
		if (conn->doubted != (u32)conn->cookie) {
			conn->doubted = conn->cookie;
			continue;
		}
		COUNT(slot, unseen);
		slot_release(conn, index);
	}
	return 0;
}
