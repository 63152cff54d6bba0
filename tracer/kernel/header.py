# SPDX-License-Identifier: Apache-2.0
"""BTF → C: the few kernel structures the programs read, at this kernel's own offsets.

Each generated structure holds only the members named in STRUCTS, every one in an anonymous
struct of a union with padding before it, so members keep their real offsets, unions and
bitfields included, and nothing else of the kernel's headers is needed. A member an older or
newer kernel lacks leaves no ``HAS_struct_member`` macro; the C side falls back by #ifdef.
"""

from __future__ import annotations

from collections.abc import Callable

from tracer.kernel.btf import Btf, BtfError, Member

__all__ = ("MEMBERS", "kernel_types")

Resolve = Callable[[str, str], "Member | None"]

_INET = "inet_conn.icsk_inet."
_ICSK = "inet_conn."

# struct -> member name in our C -> path in BTF. A trailing "?" marks what some kernels lack.
MEMBERS: dict[str, dict[str, str]] = {
    "tcp_sock": {
        "inet_sport": _INET + "inet_sport",
        "icsk_retransmits": _ICSK + "icsk_retransmits",
        "icsk_probes_out": _ICSK + "icsk_probes_out",
        "icsk_user_timeout": _ICSK + "icsk_user_timeout",
        "ack_pending": _ICSK + "icsk_ack.pending",
        "ack_quick": _ICSK + "icsk_ack.quick",
        "ack_pingpong": _ICSK + "icsk_ack.pingpong",
        "ack_ato": _ICSK + "icsk_ack.ato",
        "rcv_mss": _ICSK + "icsk_ack.rcv_mss",
        "dst_quick_ack": _ICSK + "icsk_ack.dst_quick_ack?",
        "dst_cache": _INET + "sk.sk_dst_cache",
        "num_sacks": "rx_opt.num_sacks",
        "rcv_nxt": "rcv_nxt",
        "rcv_wup": "rcv_wup",
        "copied_seq": "copied_seq",
        "snd_una": "snd_una",
        "snd_nxt": "snd_nxt",
        "snd_wnd": "snd_wnd",
        "write_seq": "write_seq",
        "segs_in": "segs_in",
        "segs_out": "segs_out",
        "data_segs_in": "data_segs_in",
        "data_segs_out": "data_segs_out",
        "total_retrans": "total_retrans",
        "rcv_ooopack": "rcv_ooopack",
        "bytes_sent": "bytes_sent",
        "bytes_retrans": "bytes_retrans",
        "bytes_received": "bytes_received",
        "tcp_clock_cache": "tcp_clock_cache",
        "linger2": "linger2",
        "dup_sack_end": "duplicate_sack.end_seq",
        "last_oow_ack_time": "last_oow_ack_time",
        "repair": "repair",
        "is_mptcp": "is_mptcp?",
    },
    # Apart from tcp_sock: a tracepoint's own argument is a trusted pointer from 6.3 on, and
    # loads through it need no check for a fault.
    "sock": {
        "skc_cookie": "__sk_common.skc_cookie",
        "skc_state": "__sk_common.skc_state",
        "skc_family": "__sk_common.skc_family",
        "skc_hash": "__sk_common.skc_hash",
        "skc_daddr": "__sk_common.skc_daddr",
        "skc_rcv_saddr": "__sk_common.skc_rcv_saddr",
        "skc_v6_daddr": "__sk_common.skc_v6_daddr?",
        "skc_v6_rcv_saddr": "__sk_common.skc_v6_rcv_saddr?",
        "skc_dport": "__sk_common.skc_dport",
        "skc_num": "__sk_common.skc_num",
        "skc_flags": "__sk_common.skc_flags",
        "skc_net": "__sk_common.skc_net.net",
        "lock_owned": "sk_lock.owned",
        "sk_socket": "sk_socket",
        "sk_shutdown": "sk_shutdown",
        "sk_err": "sk_err",
        "sk_drops": "sk_drops",
        "sk_protocol": "sk_protocol",
        "sk_lingertime": "sk_lingertime",
        "sk_uid": "sk_uid",
        "sk_cgroup": "sk_cgrp_data.cgroup?",
    },
    "dst_entry": {"_metrics": "_metrics"},
    "sk_buff": {"head": "head", "transport_header": "transport_header", "dev": "dev"},
    "net_device": {"nd_net": "nd_net.net"},
    "socket": {"file": "file", "sk": "sk"},
    "file": {"f_ref": "f_ref.refcnt?", "f_count": "f_count?", "private_data": "private_data"},
    "files_struct": {"fdt": "fdt"},
    "fdtable": {"max_fds": "max_fds", "fd": "fd"},
    "net": {"inum": "ns.inum", "hashinfo": "ipv4.tcp_death_row.hashinfo?"},
    "cgroup": {"kn": "kn"},
    "kernfs_node": {"id": "id"},
    "task_struct": {
        "flags": "flags",
        "exit_code": "exit_code",
        "tgid": "tgid",
        "comm": "comm",
        "cred": "cred",
        "files": "files",
    },
    "cred": {"uid": "uid"},
    "pt_regs": {"di": "di?", "si": "si?", "dx": "dx?", "orig_ax": "orig_ax?"},
    "inet_hashinfo": {"ehash": "ehash", "ehash_mask": "ehash_mask"},
    "inet_timewait_sock": {
        "skc_nulls_node": "__tw_common.skc_nulls_node",
        "skc_hash": "__tw_common.skc_hash",
        "skc_state": "__tw_common.skc_state",
        "skc_daddr": "__tw_common.skc_daddr",
        "skc_dport": "__tw_common.skc_dport",
        "skc_v6_daddr": "__tw_common.skc_v6_daddr?",
        "tw_substate": "tw_substate",
    },
}

# Byte arrays of 16 the programs copy word by word.
_WORDS = frozenset({"skc_v6_daddr", "skc_v6_rcv_saddr", "comm"})
_SIGNED = frozenset({"sk_err", "linger2", "f_ref", "f_count", "exit_code"})
_INTEGERS = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}
_SIGNED_INTEGERS = {1: "s8", 2: "s16", 4: "s32", 8: "s64"}


def kernel_types(btf: Btf, members: dict[str, dict[str, str]] = MEMBERS) -> str:
    """Return the C text of every structure in `members` for this kernel.

    Raises BtfError naming the first required member that is missing.
    """
    return "\n".join(_struct(btf.member, name, fields) for name, fields in members.items())


def _struct(resolve: Resolve, name: str, members: dict[str, str]) -> str:
    fields, macros = [], []
    for field, path in members.items():
        found = resolve(name, path.rstrip("?"))
        if found is None and not path.endswith("?"):
            raise BtfError(f"struct {name} has no member {path}: this kernel is not known yet")
        if found is not None:
            fields.append(_field(field, found))
            macros.append(f"#define HAS_{name}_{field} 1")
    return "\n".join((f"struct {name} {{\n\tunion {{", *fields, "\t};\n};", *macros, ""))


# A member alone in a struct: padding up to it, then itself in its own size.
def _field(field: str, member: Member) -> str:
    if member.bit_size:
        return _bitfield(field, member)
    offset = member.bit_offset // 8
    pad = f"u8 pad_{field}[{offset}]; " if offset else ""
    return f"\t\tstruct {{ {pad}{_declaration(field, member)}; }};"


# Bitfields are declared in the word that holds them, as the kernel's own are: the verifier
# refuses a load that touches the members beside it.
def _bitfield(field: str, member: Member) -> str:
    kind, size = _INTEGERS[member.byte_size], member.byte_size
    word, bit = divmod(member.bit_offset, size * 8)
    pad = f"u8 pad_{field}[{word * size}]; " if word else ""
    skip = f"{kind} : {bit}; " if bit else ""
    return f"\t\tstruct {{ {pad}{skip}{kind} {field} : {member.bit_size}; }};"


def _declaration(field: str, member: Member) -> str:
    if member.pointee is not None:
        target = "void" if member.pointee == "void" else f"struct {member.pointee}"
        return f"{target} *{field}"
    if field in _WORDS:
        return f"u32 {field}[4]"
    if field == "skc_nulls_node":
        return f"u64 {field}"
    table = _SIGNED_INTEGERS if field in _SIGNED else _INTEGERS
    if member.byte_size not in table:
        raise BtfError(f"{field} takes {member.byte_size} bytes: this kernel is not known yet")
    return f"{table[member.byte_size]} {field}"
