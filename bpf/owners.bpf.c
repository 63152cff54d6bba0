// SPDX-License-Identifier: GPL-2.0
/*
 * Which process holds which TCP socket: every descriptor of every process
 * (iter/task_file), of all network namespaces at once.
 */
#define SOCK_STREAM 1
#define IPPROTO_TCP 6
#define AF_INET6 10
#define S_IFMT 00170000
#define S_IFSOCK 0140000

BPF_F_TABLE("array", u32, u32, owned_states, 1, BPF_F_MMAPABLE);

/*
 * Linux commit 4f19cab76136 ("bpf: Add a bpf_sock_from_file helper") (in v5.11);
 * before that, what the helper does, by probe reads: a pointer that came from one
 * is a number to the verifier, so what it points to is read in the same way. BCC's
 * own header may be older than the kernel and not know the helper.
 */
#ifdef HAS_SOCK_FROM_FILE
static struct socket *(*sock_from_file)(struct file *file) = (void *)162;
#define FIELD(from, member) ((from)->member)
#else
#define FIELD(from, member)                                                                        \
	({                                                                                         \
		typeof((from)->member) value = 0;                                                  \
		bpf_probe_read_kernel(&value, sizeof(value), &(from)->member);                     \
		value;                                                                             \
	})
#endif

static __always_inline struct sock *sock_of(struct file *file)
{
#ifdef HAS_SOCK_FROM_FILE
	struct socket *socket = sock_from_file(file);

	return socket ? socket->sk : NULL;
#else
	struct socket *socket = file->private_data;

	if ((file->f_inode->i_mode & S_IFMT) != S_IFSOCK || !socket)
		return NULL;
	return FIELD(socket, sk);
#endif
}

static __always_inline bool is_tcp(struct sock *sk)
{
	u16 family = FIELD(sk, skc_family);

	return FIELD(sk, sk_type) == SOCK_STREAM && FIELD(sk, sk_protocol) == IPPROTO_TCP &&
	       (family == AF_INET || family == AF_INET6);
}

int on_file(u64 *ctx)
{
	struct bpf_iter_meta *meta = (void *)ctx[0];
	struct task_struct *task = (void *)ctx[1], *leader;
	struct file *file = (void *)ctx[3];
	struct owner_row row = { .fd = ctx[2] };
	struct sock *sk;
	u32 *comm = (u32 *)row.comm, only = 0, *wanted;
	struct net *net;
	u8 state;

	if (!task || !file)
		return 0;
	sk = sock_of(file);
	wanted = owned_states.lookup(&only);
	if (!sk || !wanted || !is_tcp(sk))
		return 0;
	state = FIELD(sk, skc_state);
	if (!(*wanted >> state & 1))
		return 0;
	leader = task->group_leader;
	row.ino = file->f_inode->i_ino;
	row.start_ns = leader->start_boottime;
	row.tgid = task->tgid;
	comm[0] = leader->comm[0];
	comm[1] = leader->comm[1];
	comm[2] = leader->comm[2];
	comm[3] = leader->comm[3];
	net = FIELD(sk, skc_net);
	row.netns = FIELD(net, inum);
	row.state = state;
	bpf_seq_write(meta->seq, &row, sizeof(row));
	return 0;
}
