// SPDX-License-Identifier: GPL-2.0
/*
 * How every TCP connection of this host ends: one record per closed socket.
 *
 * The programs are BTF-typed raw tracepoints (tp_btf): fields load directly,
 * which keeps a run near a hundred nanoseconds. That matters for more than
 * speed. __bpf_trace_run() refuses to run a program on a CPU where that program
 * is already running, and TCP changes state in process context with softirqs
 * enabled: a segment that arrives at the wrong nanosecond would go unseen.
 * Every program here is therefore attached twice. The first sees all events
 * but those that interrupt it; the twin sees these, and finds by the state
 * stored in the connection that the first has already dealt with all others.
 *
 * A record holds evidence only. What it means is decided in Python.
 */
#include "records.h"
#include "compat.h"

#define PF_KTHREAD_OR_WORKER (0x00200000 | 0x00000020)
#define PF_EXITING 0x00000004
#define SK_FLAG_DEAD 1
#define SK_FLAG_DONE 2
#define RCV_SHUTDOWN 1
#define SEND_SHUTDOWN 2
#define SHUTDOWN_BOTH 3
#define ECONNABORTED 103
#define TW_BUCKET_STEPS 16
#define HOT_SLOTS 128

/*
 * One connection from its first event to CLOSE, known by the socket's cookie:
 * socket addresses are recycled at once, cookies never.
 *
 * Cookies are handed out in order, so cookie modulo a power of two spreads
 * well, and an array needs no hashing, no allocation and no lock. The first
 * HOT_SLOTS of the array stay in the CPU's cache: short connections live there.
 * One whose place is taken gets a place in the rest of the array, and after that
 * one in the hash, whose elements are allocated as they are needed and which
 * CONN_MAX only bounds. `spilled` says whether looking further is worth while.
 */
struct slot {
	u64 claims;  /* how many hold or try to take it */
	u64 spilled; /* how many of its connections are further down */
	u64 sk;	     /* the socket's address, for the sweep only */
	u64 doubted; /* cookie the last sweep found without its socket */
	struct conn_record conn;
};
BPF_ARRAY(slots, struct slot, HOT_SLOTS + SLOTS);
BPF_F_TABLE("hash", u64, struct conn_record, conns, CONN_MAX, BPF_F_NO_PREALLOC);

/* What a new element of the hash is made of; too large for the stack. */
BPF_ARRAY(blank, struct conn_record, 1);

/*
 * Closed connections on their way out. No wake-ups: the resident comes by.
 * CPUs take different rings, because what a record costs is mostly the ring's
 * lock and positions travelling from one CPU's cache to another's.
 */
BPF_RINGBUF_OUTPUT(closes_0, RING_PAGES);
#if RINGS > 1
BPF_RINGBUF_OUTPUT(closes_1, RING_PAGES);
#endif
#if RINGS > 2
BPF_RINGBUF_OUTPUT(closes_2, RING_PAGES);
BPF_RINGBUF_OUTPUT(closes_3, RING_PAGES);
#endif

/* One slot per CPU, read by the resident through mmap. */
BPF_F_TABLE("array", u32, struct counters, counts, CPU_SLOTS, BPF_F_MMAPABLE);

/* A constant the loader writes into the instructions: 1 in the twin's copy. */
static __always_inline bool is_twin(void)
{
	u64 twin;

	asm volatile("%0 = 0x7477696e ll" : "=r"(twin));
	return twin;
}

static __always_inline struct counters *counters(void)
{
	u32 cpu = bpf_get_smp_processor_id();

	return counts.lookup(&cpu);
}

#define COUNT(slot, field) __sync_fetch_and_add(&(slot)->field, 1)

/*
 * What runs on this CPU is a process, which owns the socket's lock, or a softirq
 * on top of it; neither is interrupted by its own kind. A tally or a note kept
 * for each needs no locked instruction.
 */
static __always_inline u32 level(struct sock *sk)
{
	return sk->lock_owned ? 0 : 1;
}

/* A note for the twin, where nothing else is left to tell that the first copy
 * has just done this for this socket on this CPU. */
static __always_inline void note(u64 *notes, struct sock *sk)
{
	if (!is_twin())
		notes[level(sk)] = sk->skc_cookie;
}

static __always_inline bool is_noted(u64 *notes, struct sock *sk)
{
	return is_twin() && notes[level(sk)] == sk->skc_cookie;
}

static __always_inline void take_counts(struct tcp_counts *to, struct tcp_sock *tp)
{
	u32 rcv_nxt = tp->rcv_nxt, snd_nxt = tp->snd_nxt;

	to->segs_in = tp->segs_in;
	to->segs_out = tp->segs_out;
	to->data_segs_in = tp->data_segs_in;
	to->data_segs_out = tp->data_segs_out;
	to->total_retrans = tp->total_retrans;
	to->rcv_nxt = rcv_nxt;
	to->rcv_unacked = rcv_nxt - tp->rcv_wup;
	to->unsent = tp->write_seq - snd_nxt;
	to->unacked = snd_nxt - tp->snd_una;
	to->snd_wnd = tp->snd_wnd;
}

/* Who is running. Only meaningful while a process holds the socket lock. */
static __always_inline void take_actor(struct actor *to, struct sock *sk)
{
	u32 flags = take_task(to);

	to->flags = ACTOR_VALID | (flags & PF_EXITING ? ACTOR_EXITING : 0) |
		    (flags & PF_KTHREAD_OR_WORKER ? ACTOR_KTHREAD : 0) |
		    (sk->lock_owned ? 0 : ACTOR_IN_SOFTIRQ);
	to->file_ref = file_ref_of(sk);
	to->shutdown = sk->sk_shutdown;
}

/*
 * Is this change TCP's answer to a segment, whoever holds the lock? All else
 * is the act of a process or of a timer.
 */
static __always_inline bool is_by_segment(struct sock *sk, struct tcp_sock *tp, int old, int new)
{
	switch (new) {
	case TCP_SYN_RECV:
	case TCP_ESTABLISHED:
	case TCP_FIN_WAIT2:
	case TCP_CLOSE_WAIT:
	case TCP_CLOSING: return old != new;
	case TCP_CLOSE:
		return !sk->sk_err && tp->snd_una == tp->write_seq &&
		       (old == TCP_LAST_ACK || old == TCP_CLOSING ||
			(old == TCP_FIN_WAIT2 && sk->skc_flags & SK_FLAG_DONE));
	default: return false;
	}
}

/*
 * When it happened. Reading the clock costs as much as all else in a run; while
 * TCP handles a segment its own reading, made for the segment in hand, is as
 * good: tcp_mstamp_refresh() at the start of tcp_rcv_established() and
 * tcp_rcv_state_process().
 */
static __always_inline u64 time_of(struct tcp_sock *tp, bool by_segment)
{
	u64 segment_ns = tp->tcp_clock_cache;

	return by_segment && segment_ns ? segment_ns : bpf_ktime_get_ns();
}

static __always_inline void take_v4(u8 *to, u32 addr)
{
	u32 *words = (u32 *)to;

	words[0] = 0;
	words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	words[3] = addr;
}

static __always_inline void take_v6(u8 *to, u32 *from)
{
	u32 *words = (u32 *)to;

	words[0] = from[0];
	words[1] = from[1];
	words[2] = from[2];
	words[3] = from[3];
}

static __always_inline bool is_v4_mapped(u8 *addr)
{
	u32 *words = (u32 *)addr;

	return words[0] == 0 && words[1] == 0 && words[2] == bpf_htonl(0xffff);
}

static __always_inline void take_tuple(struct conn_record *conn, struct sock *sk,
				       struct tcp_sock *tp)
{
	if (sk->skc_family == AF_INET) {
		take_v4(conn->saddr, sk->skc_rcv_saddr);
		take_v4(conn->daddr, sk->skc_daddr);
		conn->family = 4;
	}
#ifdef HAS_sock_skc_v6_daddr
	else {
		take_v6(conn->saddr, sk->skc_v6_rcv_saddr);
		take_v6(conn->daddr, sk->skc_v6_daddr);
		conn->family = is_v4_mapped(conn->daddr) ? 4 : 6;
	}
#endif
	/* Not skc_num: tcp_set_state() has put the port by now. */
	conn->lport = bpf_ntohs(tp->inet_sport);
	conn->rport = bpf_ntohs(sk->skc_dport);
	conn->netns = sk->skc_net->inum;
}

/*
 * Was a TIME_WAIT mini-socket made? tcp_time_wait() hashes it into the
 * socket's own bucket before tcp_done() leads to CLOSE, so it is there now.
 * The bucket is an array behind a plain pointer: probe reads, on this path only.
 */
static __always_inline u8 find_time_wait(struct sock *sk)
{
#ifdef HAS_net_hashinfo
	struct inet_hashinfo *hashinfo = sk->skc_net->hashinfo;
	u32 hash = sk->skc_hash;
	u64 bucket = (u64)hashinfo->ehash + (u64)(hash & hashinfo->ehash_mask) * sizeof(u64);
	struct inet_timewait_sock tw = {};
	u64 node = 0;
	int i;

	if (bpf_probe_read_kernel(&node, sizeof(node), (void *)bucket))
		return TW_NOT_LOOKED;
	for (i = 0; i < TW_BUCKET_STEPS; i++) {
		if (node & 1)
			return TW_NONE;
		node -= offsetof(struct inet_timewait_sock, skc_nulls_node);
		if (bpf_probe_read_kernel(&tw, sizeof(tw), (void *)node))
			return TW_NOT_LOOKED;
		if (tw.skc_state == TCP_TIME_WAIT && tw.skc_hash == hash &&
		    tw.skc_dport == sk->skc_dport && tw.skc_daddr == sk->skc_daddr)
			return tw.tw_substate;
		node = tw.skc_nulls_node;
	}
#endif
	return TW_NOT_LOOKED;
}

static __always_inline void take_delayed_ack(struct conn_record *conn, struct tcp_sock *tp)
{
	conn->ack_pending = tp->ack_pending;
	conn->ack_pingpong = tp->ack_pingpong;
	conn->ack_quick = tp->ack_quick;
	conn->ack_ato_jiffies = tp->ack_ato;
}

static __always_inline void take_end(struct conn_record *conn, struct sock *sk, struct tcp_sock *tp,
				     int old, u64 now)
{
	u64 lingertime = sk->sk_lingertime;

	conn->closed_ns = now;
	conn->closed_clock_ns = tp->tcp_clock_cache;
	conn->old_state = old;
	conn->sk_shutdown = sk->sk_shutdown;
	conn->sk_flags = sk->skc_flags;
	conn->sk_err = sk->sk_err;
	conn->sk_err_soft = sk->sk_err_soft;
	conn->lingertime_jiffies = lingertime > 0xffffffff ? 0xffffffff : lingertime;
	conn->user_timeout_ms = tp->icsk_user_timeout;
	conn->linger2 = tp->linger2;
	conn->probes_out = tp->icsk_probes_out;
	conn->retransmits = tp->icsk_retransmits;
	/* __tcp_close() drained the queue already but never moves copied_seq. */
	conn->unread = tp->rcv_nxt - tp->copied_seq;
	conn->bytes_sent = tp->bytes_sent;
	conn->bytes_retrans = tp->bytes_retrans;
	conn->bytes_received = tp->bytes_received;
	conn->cgroup_id = cgroup_of(sk);
	conn->uid = sk->sk_uid;
	if (is_mptcp_subflow(tp))
		conn->flags |= CONN_MPTCP_SUBFLOW;
	take_tuple(conn, sk, tp);
}

static __always_inline void on_close(struct conn_record *conn, struct sock *sk, struct tcp_sock *tp,
				     int old, u64 now)
{
	take_end(conn, sk, tp, old, now);
	conn->tw_substate = TW_NOT_LOOKED;
	if (old == TCP_FIN_WAIT2 || old == TCP_CLOSING)
		conn->tw_substate = find_time_wait(sk);
	if (old == TCP_FIN_WAIT2 && conn->sk_flags & SK_FLAG_DONE)
		conn->fin_received_ns = now;
	if (sk->lock_owned)
		conn->flags |= CONN_CLOSE_OWNED;
	conn->close_actor_file_ref = file_ref_of(sk);
}

static __always_inline long output(struct conn_record *conn)
{
	switch (bpf_get_smp_processor_id() & (RINGS - 1)) {
#if RINGS > 1
	case 1: return closes_1.ringbuf_output(conn, sizeof(*conn), BPF_RB_NO_WAKEUP);
#endif
#if RINGS > 2
	case 2: return closes_2.ringbuf_output(conn, sizeof(*conn), BPF_RB_NO_WAKEUP);
	case 3: return closes_3.ringbuf_output(conn, sizeof(*conn), BPF_RB_NO_WAKEUP);
#endif
	default: return closes_0.ringbuf_output(conn, sizeof(*conn), BPF_RB_NO_WAKEUP);
	}
}

/* May the segment that ended it have brought data? Not if none came at all since
 * the FIN, the peer's where there was one. */
static __always_inline bool data_came(struct conn_record *conn)
{
	bool peer_closed = conn->old_state == TCP_LAST_ACK || conn->old_state == TCP_CLOSING;
	u32 before =
		peer_closed ? conn->at_fin_received.data_segs_in : conn->at_fin_sent.data_segs_in;

	return conn->at_close.data_segs_in != before;
}

/*
 * A RST of ours can still follow the record: where a process ended the
 * connection without an error, and as the answer to data for a direction that
 * was shut, which tcp_rcv_state_process() gives after tcp_reset() or tcp_done().
 */
static __always_inline bool reset_may_follow(struct conn_record *conn, bool by_segment)
{
	if (conn->rst_sent_ns || by_segment || conn->old_state == TCP_SYN_SENT)
		return false;
	if (conn->sk_err)
		return conn->sk_shutdown & RCV_SHUTDOWN && data_came(conn);
	/* An orphan in FIN_WAIT2 that gets no mini-socket: data came, or no room. */
	if (conn->old_state == TCP_FIN_WAIT2 && conn->sk_flags & SK_FLAG_DEAD &&
	    conn->linger2 >= 0 && !data_came(conn))
		return false;
	return conn->tw_substate != TCP_FIN_WAIT2 && conn->tw_substate != TCP_TIME_WAIT;
}

/* Two tallies instead of a locked addition, which would wait for the record's
 * way through the caches: see level(). */
static __always_inline void emit(struct conn_record *conn, struct sock *sk, struct counters *slot,
				 bool by_segment)
{
	conn->type = RECORD_CLOSE;
	if (reset_may_follow(conn, by_segment))
		conn->flags |= CONN_RESET_MAY_FOLLOW;
	if (output(conn))
		COUNT(slot, ring_full);
	else
		slot->emitted[level(sk)]++;
}

static __always_inline struct slot *hot_slot(u64 cookie)
{
	u32 index = cookie & (HOT_SLOTS - 1);

	return slots.lookup(&index);
}

static __always_inline struct slot *cold_slot(u64 cookie)
{
	u32 index = HOT_SLOTS + (cookie & (SLOTS - 1));

	return slots.lookup(&index);
}

static __always_inline struct conn_record *conn_find(u64 cookie)
{
	struct slot *slot = hot_slot(cookie);

	if (!cookie || !slot)
		return NULL;
	if (slot->conn.cookie == cookie)
		return &slot->conn;
	if (!slot->spilled)
		return NULL;
	slot = cold_slot(cookie);
	if (!slot)
		return NULL;
	if (slot->conn.cookie == cookie)
		return &slot->conn;
	return slot->spilled ? conns.lookup(&cookie) : NULL;
}

/*
 * Whoever reads back its own claim alone owns the slot. Two that try at once
 * may both step back, never both go on; stepping back leads further down.
 */
static __always_inline struct conn_record *slot_take(struct slot *slot, struct sock *sk)
{
	if (!slot || slot->claims)
		return NULL;
	__sync_fetch_and_add(&slot->claims, 1);
	if (*(volatile u64 *)&slot->claims != 1) {
		__sync_fetch_and_add(&slot->claims, -1);
		return NULL;
	}
	slot->sk = (u64)sk;
	return &slot->conn;
}

static __always_inline struct conn_record *conn_spill(u64 cookie, struct sock *sk)
{
	struct slot *hot = hot_slot(cookie), *cold = cold_slot(cookie);
	struct conn_record *conn, *any;
	int first = 0;

	if (!hot || !cold)
		return NULL;
	conn = slot_take(cold, sk);
	if (!conn) {
		any = blank.lookup(&first);
		if (!any || conns.update(&cookie, any))
			return NULL;
		__sync_fetch_and_add(&cold->spilled, 1);
		conn = conns.lookup(&cookie);
	}
	__sync_fetch_and_add(&hot->spilled, 1);
	return conn;
}

/* A connection from here on. A socket that connects again keeps its cookie, and
 * its place if its CLOSE went unseen. */
static __always_inline struct conn_record *conn_start(struct conn_record *conn, struct sock *sk,
						      struct counters *slot, int old, int new)
{
	u64 cookie = bpf_get_socket_cookie(sk);

	if (!conn)
		conn = slot_take(hot_slot(cookie), sk);
	if (!conn)
		conn = conn_spill(cookie, sk);
	if (!conn)
		return NULL;
	__builtin_memset(conn, 0, sizeof(*conn));
	conn->cookie = cookie;
	conn->state = old;
	conn->states_seen = 1 << old;
	if (new == TCP_SYN_SENT)
		conn->flags = CONN_OPENED_ACTIVE;
	else if (old == TCP_SYN_RECV)
		conn->flags = CONN_OPENED_PASSIVE;
	else
		COUNT(slot, unknown_sockets); /* opened before we were attached */
	return conn;
}

static __always_inline void slot_free(struct slot *slot)
{
	slot->conn.cookie = 0;
	__sync_fetch_and_add(&slot->claims, -1);
}

static __always_inline void conn_release(struct conn_record *conn)
{
	u64 cookie = conn->cookie;
	struct slot *hot = hot_slot(cookie), *cold = cold_slot(cookie);

	if (!hot || !cold)
		return;
	if (hot->conn.cookie == cookie) {
		slot_free(hot);
		return;
	}
	if (cold->conn.cookie == cookie)
		slot_free(cold);
	else if (!conns.delete(&cookie))
		__sync_fetch_and_add(&cold->spilled, -1);
	__sync_fetch_and_add(&hot->spilled, -1);
}

/* Did whoever runs now make this CLOSE? close() that resets, disconnect and
 * ss -K do; they come after shutdown() too, and then name another actor than
 * the one who queued the FIN. */
static __always_inline bool is_own_act(struct conn_record *conn, bool by_segment)
{
	if (!(conn->flags & CONN_CLOSE_OWNED))
		return false;
	if (!(conn->closer.flags & ACTOR_VALID))
		return true;
	return !by_segment && !(conn->sk_flags & SK_FLAG_DEAD) &&
	       (!conn->sk_err || conn->sk_err == ECONNABORTED);
}

/* What the change means for the record: when, and which counters and whose
 * name belong to that moment. One copy of the reading code serves them all. */
static __always_inline void on_new_state(struct conn_record *conn, struct sock *sk,
					 struct tcp_sock *tp, struct counters *slot, int old,
					 int new, u64 now, bool by_segment)
{
	struct tcp_counts *moment = NULL;
	struct actor *actor = NULL;

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
		moment = &conn->at_fin_sent;
		actor = &conn->closer;
		break;
	case TCP_FIN_WAIT2:
		conn->fin_acked_ns = now;
		conn->fin_acked_clock_ns = tp->tcp_clock_cache;
		if (sk->lock_owned)
			conn->flags |= CONN_FIN_ACKED_OWNED;
		moment = &conn->at_fin_acked;
		break;
	case TCP_CLOSE_WAIT:
	case TCP_CLOSING:
		conn->fin_received_ns = now;
		take_delayed_ack(conn, tp);
		moment = &conn->at_fin_received;
		break;
	case TCP_CLOSE:
		on_close(conn, sk, tp, old, now);
		moment = &conn->at_close;
		if (is_own_act(conn, by_segment))
			actor = &conn->closer;
		break;
	}
	if (moment)
		take_counts(moment, tp);
	if (actor)
		take_actor(actor, sk);
	if (new == TCP_CLOSE) {
		emit(conn, sk, slot, by_segment);
		conn_release(conn);
	}
}

static __always_inline void count_no_room(struct counters *slot, int new)
{
	COUNT(slot, conn_create_failed);
	if (new == TCP_CLOSE)
		COUNT(slot, conn_map_full);
}

int on_set_state(u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	int old = ctx[1], new = ctx[2];
	bool connecting = new == TCP_SYN_SENT;
	struct conn_record *conn;
	struct counters *slot;
	struct tcp_sock *tp;
	bool by_segment;
	u64 now;

	/* A child's LISTEN->SYN_RECV tells nothing its next change does not. */
	if (new == TCP_LISTEN || old == TCP_LISTEN || (old == TCP_CLOSE && !connecting))
		return 0;
	conn = conn_find(sk->skc_cookie);
	/* The other copy was here first: see the top of the file. */
	if (conn && conn->state == new && (old != new || conn->reclosed_ns))
		return 0;
	slot = counters();
	if (!slot || (!conn && new == TCP_CLOSE && is_noted(slot->last_closed, sk)))
		return 0;
	/* NULL for what is not TCP: MPTCP's own socket, DCCP. */
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return 0;
	if (connecting || !conn)
		conn = conn_start(conn, sk, slot, old, new);
	if (!conn) {
		count_no_room(slot, new);
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
		conn->reclosed_ns = now; /* close() after shutdown() */
	else
		on_new_state(conn, sk, tp, slot, old, new, now, by_segment);
	if (new == TCP_CLOSE)
		note(slot->last_closed, sk);
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
	return sk->skc_cookie;
}

static __always_inline void take_reset(struct conn_record *conn, u64 *ctx)
{
	conn->rst_sent_ns = bpf_ktime_get_ns();
	conn->rst_sent_state = conn->state;
	conn->rst_flags |= (ctx[1] ? RST_SENT_REPLY : RST_SENT_ACTIVE) |
			   (conn->state == TCP_CLOSE ? RST_SENT_AFTER_CLOSE : 0);
#ifdef HAS_RST_REASON
	conn->rst_flags |= RST_HAS_REASON;
	conn->rst_reason = ctx[2];
#endif
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
	take_reset(late, ctx);
	late->closed_ns = late->rst_sent_ns;
	closes_0.ringbuf_submit(late, BPF_RB_NO_WAKEUP);
	COUNT(slot, resets_amended);
}

/* (sk, skb, reason); skb == NULL means nothing asked for this RST but
 * ourselves. Before CLOSE the first RST is the one that counts, so the twin may
 * run for the same event. */
int on_send_reset(u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	u64 cookie = cookie_of_full_socket(sk);
	struct conn_record *conn = conn_find(cookie);
	struct counters *slot = counters();

	if (!cookie || !slot)
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
	if (!conn->rst_sent_ns)
		take_reset(conn, ctx);
	return 0;
}

int on_receive_reset(u64 *ctx)
{
	struct conn_record *conn = conn_find(cookie_of_full_socket((struct sock *)ctx[0]));

	if (!conn || conn->rst_received_ns)
		return 0;
	conn->rst_received_ns = bpf_ktime_get_ns();
	conn->rst_received_state = conn->state;
	conn->rst_flags |= RST_RECEIVED;
	return 0;
}

/* Freed memory of a socket keeps its bytes until it is used again: a socket
 * that still bears its cookie is gone all the same once it is in CLOSE. */
static __always_inline bool is_socket_gone(struct slot *slot)
{
	struct sock *sk = (struct sock *)slot->sk;
	u64 cookie = 0;
	u8 state = 0;

	bpf_probe_read_kernel(&cookie, sizeof(cookie), &sk->skc_cookie);
	bpf_probe_read_kernel(&state, sizeof(state), (void *)&sk->skc_state);
	return cookie != slot->conn.cookie || state == TCP_CLOSE;
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
		struct slot *place = slots.lookup(&index);

		if (!place)
			break;
		if (!place->conn.cookie || !is_socket_gone(place))
			continue;
		if (place->doubted != place->conn.cookie) {
			place->doubted = place->conn.cookie;
			continue;
		}
		COUNT(slot, unseen);
		conn_release(&place->conn);
	}
	return 0;
}
