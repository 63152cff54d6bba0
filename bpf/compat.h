/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One helper per kernel difference. Which branch compiles is decided by the
 * members the running kernel's BTF has (HAS_struct_member), never by a version.
 */
#ifndef FOURWAVE_COMPAT_H
#define FOURWAVE_COMPAT_H

/*
 * A member of what was found through a file. Linux commit 4f19cab76136 ("bpf: Add a
 * bpf_sock_from_file helper") (in v5.11) leads to a socket with its type; a pointer
 * that came from a probe read is a number to the verifier, and what it points to is
 * read in the same way.
 */
#ifdef HAS_SOCK_FROM_FILE
#define FIELD(from, member) ((from)->member)
#else
#define FIELD(from, member)                                                                        \
	({                                                                                         \
		typeof((from)->member) value = 0;                                                  \
		bpf_probe_read_kernel(&value, sizeof(value), &(from)->member);                     \
		value;                                                                             \
	})
#endif

/*
 * Let a socket have a cookie. What the helper returns is not asked for: BCC
 * declares it as 32 bits, and a busy host hands out four billion within days.
 */
static __always_inline void give_cookie(struct sock *sk)
{
#ifdef HAS_SOCKET_COOKIE
	bpf_get_socket_cookie(sk);
#endif
}

/*
 * What a connection is known by: its socket's cookie. Before Linux commit
 * c5dbb89fc2ac ("bpf: Expose bpf_get_socket_cookie to tracing programs") (in
 * v5.12) no program of ours could give a socket one, and its address has to do,
 * which the next socket may inherit: see address_is_new().
 */
static __always_inline u64 key_of(struct sock *sk)
{
#ifdef HAS_SOCKET_COOKIE
	return sk->skc_cookie;
#else
	struct sock *pointer = sk;
	u64 address = 0;

	/* No arithmetic on pointers: only a helper's copy is a number. */
	bpf_probe_read_kernel(&address, sizeof(address), &pointer);
	/* Sockets lie at multiples of 64, in slabs of 32 KiB: spread both. */
	address >>= 6;
	return address ^ address >> 9;
#endif
}

/* The same through a pointer without a type: a kprobe's argument, a number. */
static __always_inline u64 probed_key_of(struct sock *sk)
{
#ifdef HAS_SOCKET_COOKIE
	u64 key = 0;

	bpf_probe_read_kernel(&key, sizeof(key), &sk->skc_cookie);
	return key;
#else
	return key_of(sk);
#endif
}

/* The same for a socket that may not have a cookie yet. */
static __always_inline u64 new_key_of(struct sock *sk)
{
	give_cookie(sk);
	return key_of(sk);
}

/*
 * Is the socket's file being released? Tells close() and exit (the last
 * reference is gone) from shutdown() and connect(AF_UNSPEC).
 *
 * Linux commit 90ee6ed776c0 ("fs: port files to file_ref") (in v6.13) replaced
 * the plain count by a rcuref-like one: 0 stands for one reference, and a
 * released one has both top bits set (FILE_REF_DEAD is 0xE000...). Before that
 * a released file has f_count == 0.
 */
static __always_inline u8 file_ref_of(struct sock *sk)
{
	struct socket *socket = sk->sk_socket;
	struct file *file;

	if (!socket)
		return FILE_NONE;
	file = socket->file;
	if (!file)
		return FILE_NONE;
#ifdef HAS_file_f_ref
	return (u64)file->f_ref >= 0xC000000000000000ULL ? FILE_DEAD : FILE_ALIVE;
#else
	return file->f_count == 0 ? FILE_DEAD : FILE_ALIVE;
#endif
}

/*
 * Fill in who is running. Linux commit 3ca1032ab7ab ("bpf: Implement
 * get_current_task_btf and RET_PTR_TO_BTF_ID") (in v5.11) lets the fields load
 * directly, at a tenth of what the helpers for uid and comm take; before that,
 * probe reads.
 */
static __always_inline u32 take_task(struct actor *to)
{
	u32 *comm = (u32 *)to->comm;
#ifdef HAS_CURRENT_TASK_BTF
	struct task_struct *task = bpf_get_current_task_btf();

	to->tgid = task->tgid;
	to->uid = task->cred->uid;
	to->exit_code = task->exit_code;
	comm[0] = task->comm[0];
	comm[1] = task->comm[1];
	comm[2] = task->comm[2];
	comm[3] = task->comm[3];
	return task->flags;
#else
	struct task_struct *task = (void *)bpf_get_current_task();
	u32 flags = 0, exit_code = 0;

	to->tgid = bpf_get_current_pid_tgid() >> 32;
	to->uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(comm, COMM_LEN);
	bpf_probe_read_kernel(&exit_code, sizeof(u32), &task->exit_code);
	to->exit_code = exit_code;
	bpf_probe_read_kernel(&flags, sizeof(u32), &task->flags);
	return flags;
#endif
}

/* Early 5.10 kept the cgroup in a tagged union; without the member, no cgroup. */
static __always_inline u64 cgroup_of(struct sock *sk)
{
#ifdef HAS_sock_sk_cgroup
	struct cgroup *cgroup = sk->sk_cgroup;

	return cgroup ? cgroup->kn->id : 0;
#else
	return 0;
#endif
}

#define RTAX_QUICKACK 15
#define DST_METRICS_FLAGS 3

/* "quickack 1" of the route. Newer kernels keep it in the socket; else it is one of
 * the metrics, which lie behind a tagged pointer. */
static __always_inline bool is_route_quick(struct tcp_sock *tp)
{
#ifdef HAS_tcp_sock_dst_quick_ack
	return tp->dst_quick_ack;
#else
	struct dst_entry *dst = tp->dst_cache;
	u32 quick = 0;

	if (!dst)
		return false;
	bpf_probe_read_kernel(&quick, sizeof(quick),
			      (void *)((dst->_metrics & ~(u64)DST_METRICS_FLAGS) +
				       (RTAX_QUICKACK - 1) * sizeof(u32)));
	return quick;
#endif
}

static __always_inline bool is_mptcp_subflow(struct tcp_sock *tp)
{
#ifdef HAS_tcp_sock_is_mptcp
	return tp->is_mptcp & 1;
#else
	return false;
#endif
}

#endif
