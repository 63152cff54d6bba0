// SPDX-License-Identifier: GPL-2.0
/*
 * Which process holds which TCP socket: every descriptor of every process
 * (iter/task_file), of all network namespaces at once.
 *
 * Sockets worth a look get a row. Open connections are many, and only counted:
 * by process and destination. Those of our services have no destination, so this
 * comes after the walks, which say what listens where.
 */
#define SOCK_STREAM 1
#define IPPROTO_TCP 6
#define AF_INET6 10
#define S_IFMT 00170000
#define S_IFSOCK 0140000

BPF_F_TABLE("array", u32, struct wanted, wanted, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("hash", struct service_key, u32, services, SERVICES_MAX, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", u32, struct home, homes, HOMES_MAX, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct user_key, struct user_tally, users, USERS_MAX, BPF_F_NO_PREALLOC);

/* Before it, see FIELD, what the helper does. BCC's own header may be older than the
 * kernel and not know it. */
#ifdef HAS_SOCK_FROM_FILE
static struct socket *(*sock_from_file)(struct file *file) = (void *)162;
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

static __always_inline u32 netns_of(struct sock *sk)
{
	struct net *net = FIELD(sk, skc_net);

	return FIELD(net, inum);
}

static __always_inline void note_service(u32 netns, u16 port)
{
	struct service_key key = { .netns = netns, .lport = port };
	u32 one = 1;

	services.update(&key, &one);
}

static __always_inline void take_comm(u8 *to, struct task_struct *leader)
{
	u32 *comm = (u32 *)to;

	comm[0] = leader->comm[0];
	comm[1] = leader->comm[1];
	comm[2] = leader->comm[2];
	comm[3] = leader->comm[3];
}

static __always_inline void count_user(struct wanted *which, struct task_struct *task,
				       struct sock *sk)
{
	struct service_key service = { .netns = netns_of(sk), .lport = FIELD(sk, skc_num) };
	struct user_key key = { .tgid = task->tgid };
	struct user_tally *found, fresh = { .count = 1 };

	if (services.lookup(&service))
		return;
	key.netns = service.netns;
	key.family = take_addresses(key.laddr, key.raddr, sk);
	key.rport = bpf_ntohs(FIELD(sk, skc_dport));
	found = users.lookup(&key);
	if (found) {
		found->count++;
		return;
	}
	fresh.start_ns = task->group_leader->start_boottime;
	take_comm(fresh.comm, task->group_leader);
	if (users.update(&key, &fresh))
		which->users_left_out++;
}

/* A row that does not fit ends the read, and the kernel shows the file again at the next. */
static __always_inline bool tell_owner(u64 *ctx, struct wanted *which, struct task_struct *task,
				       struct file *file, struct sock *sk)
{
	struct bpf_iter_meta *meta = (void *)ctx[0];
	struct owner_row row = { .fd = ctx[2] };

	if (!which->room) {
		which->rows_left_out++;
		return true;
	}
	row.ino = file->f_inode->i_ino;
	row.start_ns = task->group_leader->start_boottime;
	row.tgid = task->tgid;
	take_comm(row.comm, task->group_leader);
	row.netns = netns_of(sk);
	row.state = FIELD(sk, skc_state);
	if (bpf_seq_write(meta->seq, &row, sizeof(row)))
		return false;
	which->room--;
	return true;
}

static __always_inline void note_home(u64 *ctx, struct task_struct *task, struct sock *sk)
{
	struct home home = { .tgid = task->tgid, .fd = ctx[2] };
	u32 netns = netns_of(sk);

	if (!homes.lookup(&netns))
		homes.update(&netns, &home);
}

int on_file(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[1];
	struct file *file = (void *)ctx[3];
	struct wanted *which;
	struct sock *sk;
	u32 only = 0;
	u8 state;

	if (!task || !file)
		return 0;
	sk = sock_of(file);
	which = wanted.lookup(&only);
	if (!sk || !which || !is_tcp(sk))
		return 0;
	note_home(ctx, task, sk);
	state = FIELD(sk, skc_state);
	if (which->rows >> state & 1 && !tell_owner(ctx, which, task, file, sk))
		return 0;
	if (which->users >> state & 1)
		count_user(which, task, sk);
	return 0;
}
