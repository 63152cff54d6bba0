/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who accepted a connection, and how long it had waited for that. Only where a
 * kernel function can be hooked: accept() changes no state.
 *
 * The function is security_sock_graft(), which inet_accept() calls with the child
 * just before the process has it. inet_csk_accept() would tell the same on its
 * return, but it sleeps: a kretprobe has few places for callers that have not
 * returned yet, and idle servers would hold them all.
 */
#ifndef FOURWAVE_ACCEPT_H
#define FOURWAVE_ACCEPT_H

#define WAITED_MAX_US 0xffffffff

static __always_inline void take_accept(struct conn *conn)
{
	u64 now = bpf_ktime_get_ns(), waited_us;

	if (!conn || !(conn->flags & CONN_OPENED_PASSIVE) || !conn->opened_ns)
		return;
	waited_us = now > conn->opened_ns ? (now - conn->opened_ns) / 1000 : 0;
	take_task(&conn->opener);
	conn->opener.uid = waited_us > WAITED_MAX_US ? WAITED_MAX_US : waited_us;
	conn->opener.flags = ACTOR_VALID | ACTOR_ACCEPTED;
}

int on_accept_fentry(u64 *ctx)
{
	take_accept(conn_find(probed_key_of((struct sock *)ctx[0])));
	return 0;
}

/* Without the hash: see slot_find(). */
#ifdef HAS_pt_regs_di
int on_accept_kprobe(struct pt_regs *ctx)
{
	take_accept(slot_find(probed_key_of((struct sock *)ctx->di)));
	return 0;
}
#endif

#endif
