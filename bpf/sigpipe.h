/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which connection a SIGPIPE is about. sk_stream_error() raises it within the
 * sender's system call, without the socket in hand; the call's own descriptor
 * leads there. A look at every send() would tell the same, and cost every send().
 */
#ifndef FOURWAVE_SIGPIPE_H
#define FOURWAVE_SIGPIPE_H

#ifdef KNOWS_SENDER

#define SIGPIPE 13
#define IPPROTO_TCP 6

/* The system calls of x86-64 that can send on a stream, by where the descriptor is. */
static __always_inline int descriptor_sent_on(struct pt_regs *regs)
{
	switch (regs->orig_ax) {
	case 1:	  /* write */
	case 20:  /* writev */
	case 40:  /* sendfile */
	case 44:  /* sendto */
	case 46:  /* sendmsg */
	case 307: /* sendmmsg */
	case 328: /* pwritev2 */ return regs->di;
	case 275: /* splice */ return regs->dx;
	default: return -1;
	}
}

/* Longer than the resident holds a record back. */
#define SIGPIPE_LATE_NS 200000000

/* The socket told of last on this CPU: who sends on and on is told of once. */
BPF_TABLE("percpu_array", u32, u64, last_sigpipe, 1);

/* The record has left: send what it takes to join them, if that can be in time. TCP's
 * clock stands still since the segment or the timer that made CLOSE. */
static __always_inline void report_sigpipe(struct sock *sk, u64 cookie)
{
	int first = 0;
	u64 *last = last_sigpipe.lookup(&first), now = bpf_ktime_get_ns(), closed = 0;
	struct conn_record *late;

	bpf_probe_read_kernel(&closed, sizeof(closed), &((struct tcp_sock *)sk)->tcp_clock_cache);
	if (!last || *last == cookie || now - closed > SIGPIPE_LATE_NS)
		return;
	late = closes_0.ringbuf_reserve(sizeof(*late));
	if (!late)
		return;
	__builtin_memset(late, 0, sizeof(*late));
	late->type = RECORD_SIGPIPE;
	late->cookie = cookie;
	late->flags = CONN_SIGPIPE;
	late->closed_ns = now;
	closes_0.ringbuf_submit(late, 0);
	*last = cookie;
}

/* Without info: sk_stream_error() gives none, kill() and timers do. The verifier takes a
 * tracepoint's pointer for never NULL; only a helper's copy is a number. */
static __always_inline bool has_no_info(u64 info)
{
	u64 number = 1;

	bpf_probe_read_kernel(&number, sizeof(number), &info);
	return !number;
}

/* (sig, info, task, group, result). */
int on_signal(u64 *ctx)
{
	struct task_struct *task;
	struct conn *conn;
	struct sock *sk;
	u64 cookie = 0;
	u32 owned = 0;
	u16 protocol = 0;
	u8 state = 0;

	if ((u32)ctx[0] != SIGPIPE || !has_no_info(ctx[1]))
		return 0;
	task = bpf_get_current_task_btf();
	sk = socket_of(task, descriptor_sent_on((struct pt_regs *)bpf_task_pt_regs(task)));
	bpf_probe_read_kernel(&owned, sizeof(owned), &sk->lock_owned);
	bpf_probe_read_kernel(&protocol, sizeof(protocol), &sk->sk_protocol);
	bpf_probe_read_kernel(&state, sizeof(state), &sk->skc_state);
	bpf_probe_read_kernel(&cookie, sizeof(cookie), &sk->skc_cookie);
	if (!cookie || !owned || protocol != IPPROTO_TCP)
		return 0;
	conn = conn_find(cookie);
	if (conn)
		conn->flags |= CONN_SIGPIPE;
	else if (state == TCP_CLOSE)
		report_sigpipe(sk, cookie);
	return 0;
}

#endif
#endif
