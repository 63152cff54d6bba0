// SPDX-License-Identifier: GPL-2.0
/*
 * Every TCP socket of one network namespace, counted where it lives (iter/tcp).
 *
 * A host may have a million sockets, so they are added up here, by state and by
 * destination; only those worth a look leave as rows. The kernel shows listening
 * sockets before all others: when a connection comes, it is known whether its
 * local port is a service's.
 *
 * A full socket is locked while the program runs on it, so the program is short.
 * No two runs of a walk overlap: nothing here needs an atomic operation.
 */
#include "records.h"
#include "compat.h"
#include "address.h"
#include "census.h"
#ifdef SLOTS
#include "conn_find.h"
#endif
#include "owners.bpf.c"

#define SK_FLAG_DEAD 1

BPF_F_TABLE("array", u32, struct walk, walks, 1, BPF_F_MMAPABLE);
/* Larger than what the kernel buffers of an iterator: PAGE_SIZE << 3. */
struct unfitting {
	u8 bytes[PAGE_SIZE << 3];
};
BPF_F_TABLE("array", u32, struct unfitting, unfittings, 1, 0);
BPF_F_TABLE("hash", struct state_key, u64, states, STATES_MAX, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct port_key, struct port_tally, ports, PORTS_MAX, BPF_F_NO_PREALLOC);

static __always_inline bool is_listening(struct walk *walk, u16 port)
{
	return walk->listening[port >> 3] >> (port & 7) & 1;
}

/* The tally of the socket's destination, or of the service it belongs to. */
static __always_inline struct port_tally *port_tally(struct walk *walk, struct sock *sk,
						     bool inbound)
{
	struct port_key key = {};
	struct port_tally *found, none = {};

	key.family = take_addresses(key.laddr, key.raddr, sk);
	key.inbound = inbound;
	if (inbound) {
		__builtin_memset(key.laddr, 0, sizeof(key.laddr));
		__builtin_memset(key.raddr, 0, sizeof(key.raddr));
		key.lport = sk->skc_num;
	} else {
		key.rport = bpf_ntohs(sk->skc_dport);
	}
	found = ports.lookup(&key);
	if (!found) {
		ports.update(&key, &none);
		found = ports.lookup(&key);
	}
	if (!found)
		walk->ports_left_out++;
	else if (sk->skc_num >= walk->port_first && sk->skc_num <= walk->port_last)
		found->in_range++;
	return found;
}

static __always_inline void count_state(struct walk *walk, u64 cgroup_id, u8 state, bool inbound)
{
	struct state_key key = { .cgroup_id = cgroup_id, .state = state, .inbound = inbound };
	u64 one = 1, *count = states.lookup(&key);

	if (count)
		(*count)++;
	else if (states.update(&key, &one))
		walk->states_left_out++;
}

/* TIME_WAIT's own timer runs for a minute, or for as long as the FIN is waited for. */
static __always_inline void on_mini(struct walk *walk, struct sock *sk)
{
	struct inet_timewait_sock *tw = (void *)bpf_skc_to_tcp_timewait_sock(sk);
	bool inbound = is_listening(walk, sk->skc_num), waits_out;
	struct port_tally *tally;
	s64 step;

	if (!tw)
		return;
	waits_out = tw->tw_substate == TCP_TIME_WAIT;
	walk->minis[waits_out][inbound]++;
	tally = port_tally(walk, sk, inbound);
	if (!tally)
		return;
	if (!waits_out) {
		tally->fin_wait2++;
		return;
	}
	tally->time_wait++;
	step = (s64)(tw->tw_expires - bpf_jiffies64());
	step = step < 0 ? 0 : (u64)step / (REMAINING_STEP_S * HZ);
	if (step >= REMAINING_STEPS)
		step = REMAINING_STEPS - 1;
	tally->remaining[step]++;
}

/* TCP's stamps are the low 32 bits of jiffies; 0 was never set. */
static __always_inline s64 age_ms(u32 now, u32 then)
{
	return then ? (u64)(now - then) * 1000 / HZ : -1;
}

/* sock.sk_ino is of v6.18. Before, by the socket's file: the verifier lets no one step from
 * struct socket to the inode that lies behind it. */
static __always_inline u64 inode_of(struct sock *sk)
{
#ifdef HAS_sock_sk_ino
	return sk->sk_ino;
#else
	struct socket *socket = sk->sk_socket;
	struct file *file;

	if (!socket)
		return 0;
	file = socket->file;
	return file ? file->f_inode->i_ino : 0;
#endif
}

/*
 * How long the first in the accept queue has been there. A child's stamp of data
 * sent is set when it is made (tcp_create_openreq_child()), and it sends none
 * before it is accepted.
 */
static __always_inline s64 oldest_wait_ms(struct tcp_sock *tp)
{
	struct request_sock *first = tp->accept_head;
	struct tcp_sock *child;
	u32 made = 0;

	if (!first)
		return -1;
	child = (struct tcp_sock *)first->child;
	bpf_probe_read_kernel(&made, sizeof(made), &child->lsndtime);
	return age_ms(bpf_jiffies64(), made);
}

static __always_inline void take_listener(struct socket_row *row, struct sock *sk,
					  struct tcp_sock *tp)
{
	row->accept_queue = sk->sk_ack_backlog;
	row->accept_queue_limit = sk->sk_max_ack_backlog;
	row->syn_queue = tp->syn_queue;
	row->drops = (u32)sk->sk_drops;
	row->oldest_wait_ms = oldest_wait_ms(tp);
}

/*
 * When CLOSE_WAIT began, where closes are followed as well. The connection may
 * give its place to another meanwhile: the key is looked at last.
 */
static __always_inline u64 close_wait_ns(struct sock *sk)
{
#ifdef SLOTS
	u64 key = key_of(sk), since_ns;
	struct conn *conn = conn_find(key);

	if (!conn || conn->state != TCP_CLOSE_WAIT)
		return 0;
	since_ns = *(volatile u64 *)&conn->fin_received_ns;
	return *(volatile u64 *)&conn->cookie == key ? since_ns : 0;
#else
	return 0;
#endif
}

static __always_inline void take_traffic(struct socket_row *row, struct tcp_sock *tp)
{
	u32 now = bpf_jiffies64(), snd_nxt = tp->snd_nxt;
	s64 acked = age_ms(now, tp->rcv_tstamp), data = age_ms(now, tp->lrcvtime);

	row->unread = tp->rcv_nxt - tp->copied_seq;
	row->unsent = tp->write_seq - snd_nxt;
	row->unacked = snd_nxt - tp->snd_una;
	row->age_data_received_ms = data;
	row->age_received_ms = data < 0 || (acked >= 0 && acked < data) ? acked : data;
	row->age_sent_ms = age_ms(now, tp->lsndtime);
	row->bytes_received = tp->bytes_received;
	row->bytes_acked = tp->bytes_acked;
	if (row->state == TCP_CLOSE_WAIT)
		row->close_wait_ns = close_wait_ns((struct sock *)tp);
}

static __always_inline void take_socket(struct socket_row *row, struct sock *sk,
					struct tcp_sock *tp, u64 cgroup_id)
{
	row->cgroup_id = cgroup_id;
	row->ino = inode_of(sk);
	row->uid = sk->sk_uid;
	row->lport = sk->skc_num;
	row->rport = bpf_ntohs(sk->skc_dport);
	row->state = sk->skc_state;
	row->family = take_addresses(row->laddr, row->raddr, sk);
	row->shutdown = sk->sk_shutdown;
	row->flags = (sk->sk_socket ? SOCKET_HAS_SOCKET : 0) |
		     (sk->skc_flags & SK_FLAG_DEAD ? SOCKET_DEAD : 0);
	if (row->state == TCP_LISTEN)
		take_listener(row, sk, tp);
	else
		take_traffic(row, tp);
}

static __always_inline void end_read(u64 *ctx)
{
	struct bpf_iter_meta *meta = (void *)ctx[0];
	u32 only = 0;
	struct unfitting *unfitting = unfittings.lookup(&only);

	if (unfitting)
		bpf_seq_write(meta->seq, unfitting, sizeof(*unfitting));
}

/*
 * Sockets that become no row fill no buffer, and a read would go on to the last of
 * them. Before Linux commit 9f4a7c930284 ("tcp: add a scheduling point in
 * established_get_first()") (in v6.6) it gives the processor to nobody meanwhile. So
 * it is ended now and then; the next one begins with the socket that ended it.
 */
static __always_inline bool pauses(u64 *ctx, struct walk *walk)
{
	if (walk->shown++ < walk->piece)
		return false;
	walk->shown = 0;
	end_read(ctx);
	return true;
}

/*
 * Listening sockets come first. When these are all there is, what would follow is
 * a search through the hash of all others, which is the whole host's: milliseconds,
 * for each namespace. A row that does not fit ends the read before that search, so
 * the last one goes by the walk itself, and something that never fits is written.
 */
static __always_inline bool is_all(struct walk *walk, struct socket_row *row)
{
	return row->state == TCP_LISTEN && walk->there && walk->listened + 1 == walk->there &&
	       !walk->handshakes && !row->syn_queue;
}

static __always_inline void end_walk(u64 *ctx, struct walk *walk, struct socket_row *row)
{
	walk->last = *row;
	walk->ended = 1;
	end_read(ctx);
}

/* A row that does not fit ends the read, and the kernel shows the socket again
 * at the next: it is counted only once its row is out. */
static __always_inline bool tell(u64 *ctx, struct walk *walk, struct sock *sk, struct tcp_sock *tp,
				 u64 cgroup_id)
{
	struct bpf_iter_meta *meta = (void *)ctx[0];
	bool listens = sk->skc_state == TCP_LISTEN;
	struct socket_row row = { .age_received_ms = -1,
				  .age_data_received_ms = -1,
				  .age_sent_ms = -1,
				  .oldest_wait_ms = -1,
				  .netns = walk->netns };

	if (!listens && !walk->room) {
		walk->rows_left_out++;
		return true;
	}
	give_cookie(sk);
	row.cookie = sk->skc_cookie;
	take_socket(&row, sk, tp, cgroup_id);
	if (is_all(walk, &row))
		end_walk(ctx, walk, &row);
	else if (bpf_seq_write(meta->seq, &row, sizeof(row)))
		return false;
	else if (!listens)
		walk->room--;
	return true;
}

static __always_inline void on_full(u64 *ctx, struct walk *walk, struct sock *skc)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(skc);
	struct sock *sk = (struct sock *)tp;
	struct port_tally *tally;
	u64 cgroup_id;
	u8 state;

	if (!tp)
		return;
	state = sk->skc_state;
	cgroup_id = cgroup_of(sk);
	if (walk->rows >> state & 1 && !tell(ctx, walk, sk, tp, cgroup_id))
		return;
	if (state == TCP_LISTEN) {
		walk->listening[sk->skc_num >> 3] |= 1 << (sk->skc_num & 7);
		note_service(walk->netns, sk->skc_num);
		walk->listened++;
		walk->handshakes += tp->syn_queue;
		count_state(walk, cgroup_id, state, true);
		return;
	}
	count_state(walk, cgroup_id, state, is_listening(walk, sk->skc_num));
	tally = port_tally(walk, sk, is_listening(walk, sk->skc_num));
	if (tally)
		tally->in_use++;
}

int on_socket(u64 *ctx)
{
	struct sock *skc = (struct sock *)ctx[1];
	struct walk *walk;
	u32 only = 0;

	if (!skc)
		return 0;
	walk = walks.lookup(&only);
	if (!walk || pauses(ctx, walk))
		return 0;
	switch (skc->skc_state) {
	case TCP_TIME_WAIT: on_mini(walk, skc); break;
	case TCP_NEW_SYN_RECV: walk->requests[is_listening(walk, skc->skc_num)]++; break;
	default: on_full(ctx, walk, skc);
	}
	return 0;
}
