/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tallies of each CPU, and which copy of a program this is.
 */
#ifndef FOURWAVE_COUNT_H
#define FOURWAVE_COUNT_H

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
 * on top of it. A softirq is interrupted by none of its kind, nor, before Linux
 * 7.2, a process by another. A note kept for each needs no locked instruction.
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
		notes[level(sk)] = key_of(sk);
}

static __always_inline bool is_noted(u64 *notes, struct sock *sk)
{
	return is_twin() && notes[level(sk)] == key_of(sk);
}

#endif
