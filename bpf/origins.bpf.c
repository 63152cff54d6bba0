// SPDX-License-Identifier: GPL-2.0
/*
 * By which user stack a socket was connected or accepted: loaded only where
 * somebody asks for stacks, besides the programs that follow closes.
 *
 * connect() changes the state in the caller's context. accept() changes none: its
 * function is hooked where the kernel allows that; else the end of every system
 * call is looked at, which costs every call of the host a little.
 *
 * What is found stays until the socket closes. When the map is full later sockets
 * have none: the oldest are those that leak.
 */
#include "records.h"
#include "compat.h"
#include "descriptor.h"
#include "origins.h"

#ifdef HAS_SOCKET_COOKIE

#define IPPROTO_TCP 6
#define PF_KTHREAD 0x00200000

struct user_stack {
	u64 frames[USER_FRAMES_MAX];
};

BPF_TABLE("hash", u64, struct origin, origins, ORIGINS_MAX);
BPF_TABLE("stacktrace", int, struct user_stack, user_stacks, USER_STACKS_MAX);
BPF_TABLE("array", u32, u64, origin_losses, ORIGIN_LOSSES);

static __always_inline void count_loss(u32 which)
{
	u64 *count = origin_losses.lookup(&which);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* Of these words one is where the wrapper of the system call returns to: see elf_frames.py. */
static __always_inline void take_top(struct origin *origin, struct task_struct *task)
{
#if defined(KNOWS_SENDER) && defined(HAS_pt_regs_sp)
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);

	bpf_probe_read_user(origin->top, sizeof(origin->top), (void *)regs->sp);
#endif
}

static __always_inline void take_origin(void *ctx, u64 cookie, u8 how)
{
	struct task_struct *task = bpf_get_current_task_btf(), *leader = task->group_leader;
	struct origin origin = { .how = how };
	u32 *comm = (u32 *)origin.comm;
	int stack;

	if (!cookie || task->flags & PF_KTHREAD)
		return;
	stack = user_stacks.get_stackid(ctx, BPF_F_USER_STACK);
	if (stack < 0) {
		count_loss(ORIGIN_NO_STACK);
		return;
	}
	origin.stack = stack;
	origin.tgid = task->tgid;
	origin.start_ns = leader->start_boottime;
	comm[0] = leader->comm[0];
	comm[1] = leader->comm[1];
	comm[2] = leader->comm[2];
	comm[3] = leader->comm[3];
	take_top(&origin, task);
	if (origins.update(&cookie, &origin))
		count_loss(ORIGIN_NO_ROOM);
}

/* inet_sock_set_state(sk, old, new). */
int on_origin_state(u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	u32 new = ctx[2];
	u64 cookie;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (new == TCP_SYN_SENT) {
		give_cookie(sk);
		take_origin(ctx, sk->skc_cookie, ORIGIN_CONNECTED);
	} else if (new == TCP_CLOSE) {
		cookie = sk->skc_cookie;
		origins.delete(&cookie);
	}
	return 0;
}

/* A socket that is no TCP's, or whose handshake nobody saw, has no cookie or no state of these. */
static __always_inline void on_accepted(void *ctx, struct sock *sk)
{
	u64 cookie = 0;
	u16 protocol = 0;

	bpf_probe_read_kernel(&protocol, sizeof(protocol), &sk->sk_protocol);
	bpf_probe_read_kernel(&cookie, sizeof(cookie), &sk->skc_cookie);
	if (protocol == IPPROTO_TCP)
		take_origin(ctx, cookie, ORIGIN_ACCEPTED);
}

/* security_sock_graft(sk, parent): see accept.h. */
int on_origin_graft_fentry(u64 *ctx)
{
	on_accepted(ctx, (struct sock *)ctx[0]);
	return 0;
}

#ifdef HAS_pt_regs_di
int on_origin_graft_kprobe(struct pt_regs *ctx)
{
	on_accepted(ctx, (struct sock *)ctx->di);
	return 0;
}
#endif

/* Which system call ended, on the machines whose numbers are known here. */
static __always_inline bool is_accept(struct pt_regs *regs)
{
#if defined(HAS_pt_regs_orig_ax)
	return regs->orig_ax == 43 || regs->orig_ax == 288;
#elif defined(HAS_pt_regs_syscallno)
	return regs->syscallno == 202 || regs->syscallno == 242;
#else
	return false;
#endif
}

/* sys_exit(regs, ret): of accept() and accept4() the descriptor. */
int on_origin_sys_exit(u64 *ctx)
{
	s64 descriptor = ctx[1];

	if (is_accept((struct pt_regs *)ctx[0]) && descriptor >= 0)
		on_accepted(ctx, socket_of(bpf_get_current_task_btf(), descriptor));
	return 0;
}

#endif
