/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The connections that are followed, and finding one by its key. What follows
 * them and what takes the census share these maps: the loader sees to it.
 */
#ifndef FOURWAVE_CONN_FIND_H
#define FOURWAVE_CONN_FIND_H

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

#endif
