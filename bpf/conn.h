/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where connections live from their first event to CLOSE: beginning and end.
 */
#ifndef FOURWAVE_CONN_H
#define FOURWAVE_CONN_H

/* What a new element of the hash is made of; too large for the stack. */
BPF_ARRAY(blank, struct conn, 1);

/*
 * The same as conn_find() without the hash, for programs that may not use one
 * whose elements are allocated as they are needed: before v6.1 the kernel warns
 * of those where a kprobe or a raw tracepoint runs them (Linux commit
 * ee4ed53c5eb6).
 */
static __always_inline struct conn *slot_find(u64 cookie)
{
	struct conn *first = first_slot(cookie), *second = second_slot(cookie);

	if (!cookie || !first || !second)
		return NULL;
	if (first->cookie == cookie)
		return first;
	return second->cookie == cookie ? second : NULL;
}

#ifdef HAS_CMPXCHG
/* Whoever puts its cookie where none was owns the place. */
static __always_inline bool slot_take(struct conn *slot, u64 cookie)
{
	return !slot->cookie && !__sync_val_compare_and_swap(&slot->cookie, 0, cookie);
}

/*
 * Nothing that was done here before may come after. x86 keeps stores in order;
 * elsewhere the exchange does, whose result is needed to make it one.
 */
static __always_inline void slot_free(struct conn *slot)
{
#ifdef STORES_IN_ORDER
	*(volatile u64 *)&slot->cookie = 0;
#else
	__sync_lock_test_and_set(&slot->cookie, 0);
#endif
}
#else
/*
 * Whoever reads back its own claim alone owns the place. Two that try at once
 * may both step back, never both go on; stepping back leads further down.
 */
static __always_inline bool slot_take(struct conn *slot, u64 cookie)
{
	if (slot->claims)
		return false;
	__sync_fetch_and_add(&slot->claims, 1);
	if (*(volatile u32 *)&slot->claims != 1) {
		__sync_fetch_and_add(&slot->claims, -1);
		return false;
	}
	slot->cookie = cookie;
	return true;
}

static __always_inline void slot_free(struct conn *slot)
{
	slot->cookie = 0;
	__sync_fetch_and_add(&slot->claims, -1);
}
#endif

static __always_inline struct conn *conn_spill(u64 cookie)
{
	struct conn *first = first_slot(cookie), *second = second_slot(cookie);
	struct conn *conn = second, *any;
	int only = 0;

	if (!first || !second)
		return NULL;
	if (!slot_take(second, cookie)) {
		any = blank.lookup(&only);
		if (!any || conns.update(&cookie, any))
			return NULL;
		__sync_fetch_and_add(&second->spilled, 1);
		conn = conns.lookup(&cookie);
		if (conn)
			conn->cookie = cookie;
	}
	__sync_fetch_and_add(&first->spilled, 1);
	return conn;
}

static __always_inline struct conn *conn_slot(u64 cookie)
{
	struct conn *first = first_slot(cookie);

	return first && slot_take(first, cookie) ? first : conn_spill(cookie);
}

/*
 * This socket's CLOSE is dealt with: for the twin, where no connection is left to
 * tell. Another's CLOSE may come between a program and its twin: on this CPU, where
 * a process may be preempted there (since Linux 7.2); in this place, on another CPU.
 * Not both at once, so there are two notes. (Kernels without the exchange are older,
 * and need the room for claims.)
 */
static __always_inline void note_closed(struct counters *slot, struct sock *sk)
{
#ifdef HAS_CMPXCHG
	struct conn *first = first_slot(key_of(sk));

	if (first)
		first->gone = key_of(sk);
#endif
	note(slot->last_closed, sk);
}

static __always_inline bool is_noted_closed(struct counters *slot, struct sock *sk)
{
#ifdef HAS_CMPXCHG
	struct conn *first = first_slot(key_of(sk));

	if (is_twin() && first && first->gone == (u32)key_of(sk))
		return true;
#endif
	return is_noted(slot->last_closed, sk);
}

/* A connection from here on. A socket that connects again keeps its cookie, and
 * its place if its CLOSE went unseen. */
static __always_inline struct conn *conn_start(struct conn *conn, struct sock *sk,
					       struct tcp_sock *tp, struct counters *slot, u64 old,
					       u64 new)
{
	u64 cookie = new_key_of(sk);

	if (!conn)
		conn = conn_slot(cookie);
	if (!conn)
		return NULL;
	conn->sk = (u64)sk;
	conn->seen = 0;
	conn->state = old;
	conn->states_seen = 1 << old;
	conn->opened_ns = 0;
	conn->established_ns = 0;
	conn->fin_received_ns = 0;
	conn->fin_sent_ns = 0;
	conn->fin_acked_ns = 0;
	conn->opener.flags = 0;
	/* In repair mode connect() takes over a connection that others opened: no SYN leaves. */
	if (new == TCP_SYN_SENT)
		conn->flags = tp->repair ? 0 : CONN_OPENED_ACTIVE;
	else if (old == TCP_SYN_RECV)
		conn->flags = CONN_OPENED_PASSIVE;
	else
		COUNT(slot, unknown_sockets); /* opened before we were attached */
	return conn;
}

/* Free the place at this index, which is in use: without the hash, as slot_find(). */
static __always_inline void slot_release(struct conn *slot, u32 index)
{
	struct conn *first = first_slot(slot->cookie);

	slot_free(slot);
	if (index >= SLOTS && first)
		__sync_fetch_and_add(&first->spilled, -1);
}

static __always_inline void conn_release(struct conn *conn)
{
	u64 cookie = conn->cookie;
	struct conn *first = first_slot(cookie), *second;

	if (!first)
		return;
	if (first->cookie == cookie) {
		slot_free(first);
		return;
	}
	second = second_slot(cookie);
	if (!second)
		return;
	if (second->cookie == cookie)
		slot_free(second);
	else if (!conns.delete(&cookie))
		__sync_fetch_and_add(&second->spilled, -1);
	__sync_fetch_and_add(&first->spilled, -1);
}

/*
 * Where an address is the key: this one now belongs to a socket that has no
 * connection yet. What was known by it had an end that no program was run for.
 */
static __always_inline void address_is_new(struct sock *sk)
{
#ifndef HAS_SOCKET_COOKIE
	struct conn *conn = conn_find(key_of(sk));
	struct counters *slot = counters();

	if (!conn || !slot)
		return;
	COUNT(slot, unseen);
	conn_release(conn);
#endif
}

#endif
