/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What decides when the ACK of the peer's FIN leaves, and what tells afterwards
 * when it did.
 */
#ifndef FOURWAVE_DELAYED_ACK_H
#define FOURWAVE_DELAYED_ACK_H

/* ->CLOSE_WAIT, inside tcp_fin(): the FIN is in rcv_nxt, and not acknowledged yet. */
static __always_inline void take_delayed_ack(struct conn *conn, struct tcp_sock *tp)
{
	u32 rcv_nxt = tp->rcv_nxt;
	u8 flags = 0;

	conn->ack_pending = tp->ack_pending;
	conn->ack_pingpong = tp->ack_pingpong;
	conn->ack_quick = tp->ack_quick;
	conn->ack_ato_jiffies = tp->ack_ato;
	/* tcp_ofo_queue() comes here before tcp_sack_remove() takes the block away. */
	if (tp->num_sacks)
		flags |= ACK_FILLS_HOLE;
	if (rcv_nxt - tp->rcv_wup > tp->rcv_mss)
		flags |= ACK_FULL_FRAME;
	if (rcv_nxt - tp->copied_seq > 1)
		flags |= ACK_DATA_UNREAD;
	conn->ack_flags = flags;
	conn->oow_ack_time = tp->last_oow_ack_time;
}

/*
 * ->LAST_ACK, before our FIN leaves, if the peer's was acknowledged already. Its
 * timer sets TCP's clock (tcp_delack_timer_handler()); an ACK that leaves at once
 * does not, so the clock still shows when the FIN came.
 */
static __always_inline void take_ack_of_fin(struct conn *conn, struct tcp_sock *tp)
{
	u64 clock = tp->tcp_clock_cache, came = conn->fin_received_ns, waited_10us;

	if (tp->rcv_nxt != tp->rcv_wup)
		return;
	if (is_route_quick(tp))
		conn->ack_flags |= ACK_ROUTE_QUICK;
	if (!came || clock < came)
		return;
	waited_10us = (clock - came) / 10000;
	conn->fin_clock_10us = waited_10us > 0xffff ? 0xffff : waited_10us;
	conn->ack_flags |= ACK_CLOCK_KNOWN | (clock > came ? ACK_CLOCK_MOVED : 0);
}

#endif
