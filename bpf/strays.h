/* SPDX-License-Identifier: GPL-2.0 */
/*
 * RSTs that belong to no connection: nothing listens there, TIME_WAIT was met by
 * data, or a handshake was no good. Counted, not followed.
 */
#ifndef FOURWAVE_STRAYS_H
#define FOURWAVE_STRAYS_H

/* Preallocated: whoever knocks at closed ports must not make the kernel allocate. */
BPF_TABLE("hash", struct stray_key, u64, strays, STRAYS_MAX);

static __always_inline u32 netns_of(struct sock *sk, struct sk_buff *skb)
{
	struct net_device *dev;

	if (sk)
		return sk->skc_net->inum;
	dev = skb->dev;
	return dev ? dev->nd_net->inum : 0;
}

static __always_inline u8 stray_cause(struct sock *sk)
{
	if (!sk)
		return STRAY_NO_SOCKET;
	switch (sk->skc_state) {
	case TCP_TIME_WAIT: return STRAY_TIME_WAIT;
	case TCP_NEW_SYN_RECV: return STRAY_HANDSHAKE;
	case TCP_LISTEN: return STRAY_HANDSHAKE;
	default: return STRAY_NONE;
	}
}

/* The twin comes right behind the first copy, with the same segment in hand; a later
 * segment may lie at the same address, so a note counts once. Only a listener is a
 * full socket here, whose lock a process may own. */
static __always_inline bool is_counted(struct counters *slot, struct sock *sk, struct sk_buff *skb)
{
	u64 *note = &slot->last_reset[sk && sk->skc_state == TCP_LISTEN ? level(sk) : 1];
	bool counted = is_twin() && *note == (u64)skb;

	*note = is_twin() ? 0 : (u64)skb;
	return counted;
}

/* A RST in answer to a segment, for a port of ours: the segment's destination. */
static __always_inline void count_stray(struct counters *slot, u64 *ctx, u8 cause)
{
	struct sock *sk = (struct sock *)ctx[0];
	struct sk_buff *skb = (struct sk_buff *)ctx[1];
	struct stray_key key = {};
	u64 none = 0, *count;
	u16 port = 0;

	if (!skb || is_counted(slot, sk, skb))
		return;
	bpf_probe_read_kernel(&port, sizeof(port),
			      (void *)(skb->head + skb->transport_header + sizeof(port)));
	key.netns = netns_of(sk, skb);
	key.lport = bpf_ntohs(port);
	key.cause = cause;
#ifdef HAS_RST_REASON
	key.reason = ctx[2];
#endif
	count = strays.lookup(&key);
	if (!count) {
		strays.insert(&key, &none);
		count = strays.lookup(&key);
	}
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		COUNT(slot, strays_lost);
}

#endif
