/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What becomes of TIME_WAIT mini-sockets. They change without any tracepoint;
 * where kernel functions can be hooked, their changes are counted here.
 *
 * A mini-socket lives in softirqs and, for connect(), with softirqs off: from the
 * segment or the connect() that looks at it to what comes of that nothing else
 * can happen on this CPU. So whoever looks leaves a note, and what happens to the
 * mini-socket is read together with it.
 *
 * A note stays after a segment that changed nothing. Only ss -K on the same CPU,
 * before any other mini-socket was looked at there, can then be taken for the
 * segment's doing.
 */
#ifndef FOURWAVE_TIME_WAIT_H
#define FOURWAVE_TIME_WAIT_H

BPF_F_TABLE("array", u32, struct time_waits, time_waits, CPU_SLOTS, BPF_F_MMAPABLE);

#define TCP_FLAGS_OFFSET 13
#define TCP_FLAG_BIT_FIN 0x01
#define TCP_FLAG_BIT_SYN 0x02
#define TCP_FLAG_BIT_RST 0x04

/* time_waits.looked_by besides the flags of a segment, which are one byte */
#define LOOKED_CONNECT 0x100

static __always_inline struct time_waits *time_waits_here(void)
{
	u32 cpu = bpf_get_smp_processor_id();

	return time_waits.lookup(&cpu);
}

/* A segment came for a mini-socket: tcp_timewait_state_process(tw, skb, th, …) */
static __always_inline void on_tw_segment(struct inet_timewait_sock *tw, u64 th)
{
	struct time_waits *here = time_waits_here();
	u8 flags = 0, substate = 0;

	if (!here)
		return;
	bpf_probe_read_kernel(&flags, sizeof(flags), (void *)(th + TCP_FLAGS_OFFSET));
	bpf_probe_read_kernel(&substate, sizeof(substate), (void *)&tw->tw_substate);
	here->looked_at = (u64)tw;
	here->looked_by = flags;
	here->substate = substate;
}

/* connect() wants the ports of a mini-socket: tcp_twsk_unique(sk, sktw, twp) */
static __always_inline void on_tw_connect(u64 tw)
{
	struct time_waits *here = time_waits_here();

	if (!here)
		return;
	here->looked_at = tw;
	here->looked_by = LOOKED_CONNECT;
}

/*
 * Its timer starts again: __inet_twsk_schedule(tw, timeo, rearm), which comes by
 * without `rearm` for each that is new. Of a mini-socket in FIN_WAIT2 only the
 * peer's FIN does that, and takes it to TIME_WAIT.
 */
static __always_inline void on_tw_rearm(u64 tw, bool rearm)
{
	struct time_waits *here;

	if (!rearm)
		return;
	here = time_waits_here();
	if (!here || here->looked_at != tw)
		return;
	if (here->substate == TCP_FIN_WAIT2)
		here->changes[CHANGE_PEER_FIN]++;
	else if (here->looked_by & TCP_FLAG_BIT_FIN)
		here->changes[CHANGE_RESTARTED_BY_FIN]++;
	else
		here->changes[CHANGE_RESTARTED_BY_OTHER]++;
	here->substate = TCP_TIME_WAIT;
}

/* It ends before its time: inet_twsk_deschedule_put(tw) */
static __always_inline void on_tw_end(u64 tw)
{
	struct time_waits *here = time_waits_here();
	u32 by = 0;

	if (!here)
		return;
	if (here->looked_at == tw)
		by = here->looked_by;
	here->looked_at = 0;
	if (by & LOOKED_CONNECT)
		here->changes[CHANGE_REUSED]++;
	else if (by & TCP_FLAG_BIT_RST)
		here->changes[CHANGE_ENDED_BY_RST]++;
	else if (by & TCP_FLAG_BIT_SYN)
		here->changes[CHANGE_ENDED_BY_SYN]++;
	else if (by && here->substate == TCP_FIN_WAIT2)
		here->changes[CHANGE_ENDED_BY_DATA]++;
	else
		here->changes[CHANGE_DESTROYED]++;
}

int on_tw_segment_fentry(u64 *ctx)
{
	on_tw_segment((struct inet_timewait_sock *)ctx[0], ctx[2]);
	return 0;
}

int on_tw_connect_fentry(u64 *ctx)
{
	on_tw_connect(ctx[1]);
	return 0;
}

int on_tw_rearm_fentry(u64 *ctx)
{
	on_tw_rearm(ctx[0], (u8)ctx[2]);
	return 0;
}

int on_tw_end_fentry(u64 *ctx)
{
	on_tw_end(ctx[0]);
	return 0;
}

#ifdef HAS_pt_regs_di
int on_tw_segment_kprobe(struct pt_regs *ctx)
{
	on_tw_segment((struct inet_timewait_sock *)ctx->di, ctx->dx);
	return 0;
}

int on_tw_connect_kprobe(struct pt_regs *ctx)
{
	on_tw_connect(ctx->si);
	return 0;
}

int on_tw_rearm_kprobe(struct pt_regs *ctx)
{
	on_tw_rearm(ctx->di, (u8)ctx->dx);
	return 0;
}

int on_tw_end_kprobe(struct pt_regs *ctx)
{
	on_tw_end(ctx->di);
	return 0;
}
#endif

#endif
