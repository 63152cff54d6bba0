/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where a socket came from, as the resident reads it from maps. Like records.h
 * this file parses without kernel types; tests/unit/test_wire_origins.py compares
 * every offset with tracer/kernel/origins.py.
 */
#ifndef FOURWAVE_ORIGINS_H
#define FOURWAVE_ORIGINS_H

#define USER_FRAMES_MAX 32
#define STACK_TOP_WORDS 16

enum origin_how {
	ORIGIN_CONNECTED,
	ORIGIN_ACCEPTED,
};

/* Who connected or accepted a socket, and by which user stack. */
struct origin {
	fw_u64 start_ns; /* of the process, CLOCK_BOOTTIME */
	fw_u32 tgid;
	fw_u32 stack; /* number in user_stacks */
	fw_u8 comm[COMM_LEN];
	fw_u8 how; /* enum origin_how */
	fw_u8 pad[7];
	fw_u64 top[STACK_TOP_WORDS]; /* what lay at the stack pointer; 0: not known */
};

/* Why a socket has none. */
enum origin_loss {
	ORIGIN_NO_ROOM,	 /* as many live sockets have one as fit */
	ORIGIN_NO_STACK, /* not readable, or no place for one more kind of stack */
	ORIGIN_LOSSES,
};

#endif
