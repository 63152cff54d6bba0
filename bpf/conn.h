/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where connections live from their first event to CLOSE.
 */
#ifndef FOURWAVE_CONN_H
#define FOURWAVE_CONN_H

/* What a new element of the hash is made of; too large for the stack. */
BPF_ARRAY(blank, struct conn_record, 1);

/*
 * The same without the hash, for programs that may not use one whose elements
 * are allocated as they are needed: before v6.1 the kernel warns of those where
 * a kprobe or a raw tracepoint runs them (Linux commit ee4ed53c5eb6).
 */
static __always_inline struct conn_record *slot_find(u64 cookie)
{
	struct slot *hot = hot_slot(cookie), *cold = cold_slot(cookie);

	if (!cookie || !hot || !cold)
		return NULL;
	if (hot->conn.cookie == cookie)
		return &hot->conn;
	return cold->conn.cookie == cookie ? &cold->conn : NULL;
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
	u64 cookie = new_key_of(sk);

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

/* Free the place at this index, which is in use. */
static __always_inline void slot_release(struct slot *slot, u32 index)
{
	struct slot *hot = hot_slot(slot->conn.cookie);

	if (index >= HOT_SLOTS && hot)
		__sync_fetch_and_add(&hot->spilled, -1);
	slot_free(slot);
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

/*
 * Where an address is the key: this one now belongs to a socket that has no
 * connection yet. What was known by it had an end that no program was run for.
 */
static __always_inline void address_is_new(struct sock *sk)
{
#ifndef HAS_SOCKET_COOKIE
	struct conn_record *conn = conn_find(key_of(sk));
	struct counters *slot = counters();

	if (!conn || !slot)
		return;
	COUNT(slot, unseen);
	conn_release(conn);
#endif
}

#endif
