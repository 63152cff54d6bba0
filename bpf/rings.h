/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The way out: rings, and whether a RST can still follow a record.
 */
#ifndef FOURWAVE_RINGS_H
#define FOURWAVE_RINGS_H

/*
 * Closed connections on their way out. The resident comes by while there are any;
 * the kernel wakes up who sleeps with an empty ring, and only for the first record.
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

/* Room for a record; NULL when the ring is full. */
static __always_inline struct conn_record *reserve(void)
{
	switch (bpf_get_smp_processor_id() & (RINGS - 1)) {
#if RINGS > 1
	case 1: return closes_1.ringbuf_reserve(sizeof(struct conn_record));
#endif
#if RINGS > 2
	case 2: return closes_2.ringbuf_reserve(sizeof(struct conn_record));
	case 3: return closes_3.ringbuf_reserve(sizeof(struct conn_record));
#endif
	default: return closes_0.ringbuf_reserve(sizeof(struct conn_record));
	}
}

/* May the segment that ended it have brought data? Not if none came at all since
 * the FIN, the peer's where there was one. */
static __always_inline bool data_came(struct conn_record *record)
{
	bool peer_closed = record->old_state == TCP_LAST_ACK || record->old_state == TCP_CLOSING;
	u32 before =
		peer_closed ? record->at_halfway.data_segs_in : record->at_fin_sent.data_segs_in;

	return record->at_close.data_segs_in != before;
}

/*
 * A RST of ours can still follow the record: where a process ended the
 * connection without an error, and as the answer to data for a direction that
 * was shut, which tcp_rcv_state_process() gives after tcp_reset() or tcp_done().
 */
static __always_inline bool reset_may_follow(struct conn_record *record, bool by_segment)
{
	if (record->rst_sent_ns || by_segment || record->old_state == TCP_SYN_SENT)
		return false;
	/* Before the peer's FIN anything behind a hole is answered so, a bare FIN too. */
	if (record->sk_err)
		return record->sk_shutdown & RCV_SHUTDOWN &&
		       (!(record->sk_flags & SK_FLAG_DONE) || data_came(record));
	return record->tw_substate != TCP_FIN_WAIT2 && record->tw_substate != TCP_TIME_WAIT;
}

/* An application that still holds the socket is told of the error once; a send after
 * that raises SIGPIPE. */
static __always_inline bool sigpipe_may_follow(struct conn_record *record)
{
	return record->sk_err && !(record->sk_flags & SK_FLAG_DEAD) &&
	       record->old_state != TCP_SYN_SENT;
}

/* A locked addition would wait for the record's way through the caches. A process may
 * be preempted in the middle of one that is not (Linux 7.2), a softirq may not. */
static __always_inline void emit(struct conn_record *record, struct sock *sk, struct counters *slot,
				 bool by_segment)
{
	if (reset_may_follow(record, by_segment) || sigpipe_may_follow(record))
		record->flags |= CONN_MAY_FOLLOW;
	/* Any ring would do: the record knows its own. */
	closes_0.ringbuf_submit(record, 0);
	if (level(sk))
		slot->emitted[1]++;
	else
		COUNT(slot, emitted[0]);
}

#endif
