/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the socket says of itself at one moment: read, never judged.
 */
#ifndef FOURWAVE_EVIDENCE_H
#define FOURWAVE_EVIDENCE_H

#define PF_KTHREAD_OR_WORKER (0x00200000 | 0x00000020)
#define PF_EXITING 0x00000004
#define SK_FLAG_DEAD 1
#define SK_FLAG_DONE 2
#define RCV_SHUTDOWN 1
#define ECONNABORTED 103
#define TW_BUCKET_STEPS 16

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
}

/*
 * Is this change TCP's answer to a segment, whoever holds the lock? All else
 * is the act of a process or of a timer.
 */
static __always_inline bool is_by_segment(struct sock *sk, struct tcp_sock *tp, u64 old, u64 new)
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

static __always_inline void take_tuple(struct conn_record *to, struct sock *sk, struct tcp_sock *tp)
{
#ifdef HAS_sock_skc_v6_daddr
	if (sk->skc_family != AF_INET) {
		take_v6(to->saddr, sk->skc_v6_rcv_saddr);
		take_v6(to->daddr, sk->skc_v6_daddr);
		to->family = is_v4_mapped(to->daddr) ? 4 : 6;
	} else
#endif
	{
		take_v4(to->saddr, sk->skc_rcv_saddr);
		take_v4(to->daddr, sk->skc_daddr);
		to->family = 4;
	}
	/* Not skc_num: tcp_set_state() has put the port by now. */
	to->lport = bpf_ntohs(tp->inet_sport);
	to->rport = bpf_ntohs(sk->skc_dport);
	to->netns = sk->skc_net->inum;
}

/*
 * Was a TIME_WAIT mini-socket made? tcp_time_wait() hashes it into the
 * socket's own bucket before tcp_done() leads to CLOSE, so it is there now.
 * The bucket is an array behind a plain pointer: probe reads, on this path only.
 * `tw` is room for them.
 */
static __always_inline u8 find_time_wait(struct sock *sk, struct inet_timewait_sock *tw)
{
#ifdef HAS_net_hashinfo
	struct inet_hashinfo *hashinfo = sk->skc_net->hashinfo;
	u32 hash = sk->skc_hash;
	u64 bucket = (u64)hashinfo->ehash + (u64)(hash & hashinfo->ehash_mask) * sizeof(u64);
	u64 node = 0;
	int i;

	if (bpf_probe_read_kernel(&node, sizeof(node), (void *)bucket))
		return TW_NOT_LOOKED;
	for (i = 0; i < TW_BUCKET_STEPS; i++) {
		if (node & 1)
			return TW_NONE;
		node -= offsetof(struct inet_timewait_sock, skc_nulls_node);
		if (bpf_probe_read_kernel(tw, sizeof(*tw), (void *)node))
			return TW_NOT_LOOKED;
		/* One test: the verifier follows each way out of every step. */
		if (!((tw->skc_state ^ TCP_TIME_WAIT) | (tw->skc_hash ^ hash) |
		      (tw->skc_dport ^ sk->skc_dport) | (tw->skc_daddr ^ sk->skc_daddr)))
			return tw->tw_substate;
		node = tw->skc_nulls_node;
	}
#endif
	return TW_NOT_LOOKED;
}

/*
 * A bare ACK may answer an old segment instead of the peer's FIN: then
 * last_oow_ack_time changes between the two FINs.
 */
static __always_inline void take_old_answered(struct conn *conn, struct tcp_sock *tp)
{
	if (conn->fin_received_ns && conn->oow_ack_time != tp->last_oow_ack_time)
		conn->flags |= CONN_OLD_ANSWERED;
}

static __always_inline void take_end(struct conn_record *to, struct sock *sk, struct tcp_sock *tp)
{
	u64 lingertime = sk->sk_lingertime;

	/* First: a pointer to a kernel's type costs the verifier half a millisecond each
	 * time it comes by (btf_nested_type_is_trusted() looks through all names). */
	to->cgroup_id = cgroup_of(sk);
	to->sk_shutdown = sk->sk_shutdown;
	to->sk_flags = sk->skc_flags;
	to->sk_err = sk->sk_err;
	to->lingertime_jiffies = lingertime > 0xffffffff ? 0xffffffff : lingertime;
	to->user_timeout_ms = tp->icsk_user_timeout;
	to->linger2 = tp->linger2;
	to->probes_out = tp->icsk_probes_out;
	to->retransmits = tp->icsk_retransmits;
	/* __tcp_close() drained the queue already but never moves copied_seq. */
	to->unread = tp->rcv_nxt - tp->copied_seq;
	to->bytes_sent = tp->bytes_sent - tp->bytes_retrans;
	to->bytes_received = tp->bytes_received;
	to->uid = sk->sk_uid;
	to->close_actor_file_ref = file_ref_of(sk);
	if (tp->repair)
		to->flags |= CONN_REPAIR;
	if (sk->sk_drops)
		to->flags |= CONN_DROPPED;
	if (is_mptcp_subflow(tp))
		to->flags |= CONN_MPTCP_SUBFLOW;
	take_tuple(to, sk, tp);
}

#endif
