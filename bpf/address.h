/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Addresses as 16 bytes in network order, IPv4 mapped into ::ffff:0:0/96.
 */
#ifndef FOURWAVE_ADDRESS_H
#define FOURWAVE_ADDRESS_H

#define IPV6_LEN 16

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

/* Both ends of a socket, found in whatever way; returns 4 or 6. Not for hot paths. */
static __always_inline u8 take_addresses(u8 *laddr, u8 *raddr, struct sock *sk)
{
	if (FIELD(sk, skc_family) == AF_INET) {
		take_v4(laddr, FIELD(sk, skc_rcv_saddr));
		take_v4(raddr, FIELD(sk, skc_daddr));
		return 4;
	}
#ifdef HAS_sock_skc_v6_daddr
	bpf_probe_read_kernel(laddr, IPV6_LEN, &sk->skc_v6_rcv_saddr);
	bpf_probe_read_kernel(raddr, IPV6_LEN, &sk->skc_v6_daddr);
#endif
	return is_v4_mapped(raddr) || is_v4_mapped(laddr) ? 4 : 6;
}

#endif
