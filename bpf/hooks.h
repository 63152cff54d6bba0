/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What is seen only where the kernel lets a function be hooked. Counters tell
 * the same without the time; tracer/kernel/hooks.py decides which there is.
 */
#ifndef FOURWAVE_HOOKS_H
#define FOURWAVE_HOOKS_H

/*
 * An ACK is about to leave: is it the first to acknowledge the peer's FIN? The
 * segment itself sets rcv_wup to rcv_nxt (tcp_select_window), a little later.
 * Every ACK of the host comes by here, nearly none in CLOSE_WAIT. A kprobe has
 * no typed pointer, so both ways read by probe.
 */
static __always_inline void on_ack(struct sock *sk)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	struct conn *conn;
	u32 rcv_nxt = 0, rcv_wup = 0;
	u8 state = 0;

	bpf_probe_read_kernel(&state, sizeof(state), (void *)&sk->skc_state);
	if (state != TCP_CLOSE_WAIT)
		return;
	conn = slot_find(probed_key_of(sk));
	if (!conn || conn->state != TCP_CLOSE_WAIT || conn->ack_sent_ns)
		return;
	bpf_probe_read_kernel(&rcv_nxt, sizeof(rcv_nxt), &tp->rcv_nxt);
	bpf_probe_read_kernel(&rcv_wup, sizeof(rcv_wup), &tp->rcv_wup);
	if (rcv_nxt != rcv_wup)
		conn->ack_sent_ns = bpf_ktime_get_ns();
}

/* __tcp_send_ack() or tcp_send_ack(), entered. */
int on_send_ack_fentry(u64 *ctx)
{
	on_ack((struct sock *)ctx[0]);
	return 0;
}

#ifdef HAS_pt_regs_di
int on_send_ack_kprobe(struct pt_regs *ctx)
{
	on_ack((struct sock *)ctx->di);
	return 0;
}
#endif

#endif
