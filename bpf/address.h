/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Addresses as 16 bytes in network order, IPv4 mapped into ::ffff:0:0/96.
 */
#ifndef FOURWAVE_ADDRESS_H
#define FOURWAVE_ADDRESS_H

static __always_inline void take_v4(u8 *to, u32 addr)
{
	u32 *words = (u32 *)to;

	words[0] = 0;
	words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	words[3] = addr;
}

static __always_inline void take_v6(u8 *to, u32 *from)
{
	u32 *words = (u32 *)to;

	words[0] = from[0];
	words[1] = from[1];
	words[2] = from[2];
	words[3] = from[3];
}

static __always_inline bool is_v4_mapped(u8 *addr)
{
	u32 *words = (u32 *)addr;

	return words[0] == 0 && words[1] == 0 && words[2] == bpf_htonl(0xffff);
}

#endif
