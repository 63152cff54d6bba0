# SPDX-License-Identifier: Apache-2.0
"""The part of the loader child that loads the census: iterators over sockets and over files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tracer.kernel import bpf
from tracer.kernel.btf import KIND_FUNC, Btf, BtfError
from tracer.kernel.header import MEMBERS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("CENSUS_MEMBERS", "MAIN", "MAPS", "attach", "macros_of")

MAIN = "census.bpf.c"
# (name in the manifest, function, the kernel's function that names the iterator)
PROGRAMS = (
    ("sockets", "on_socket", "bpf_iter_tcp"),
    ("files", "on_file", "bpf_iter_task_file"),
)
MAPS = ("walks", "states", "ports", "wanted", "services", "homes", "users")
SHARED = ("slots", "conns")
"""Maps of the programs that follow closes, where both are loaded."""

_ADDED = {
    "tcp_sock": {
        "rcv_tstamp": "rcv_tstamp",
        "lsndtime": "lsndtime",
        "lrcvtime": "inet_conn.icsk_ack.lrcvtime",
        "syn_queue": "inet_conn.icsk_accept_queue.qlen",
        "accept_head": "inet_conn.icsk_accept_queue.rskq_accept_head",
        "bytes_acked": "bytes_acked",
    },
    "sock": {
        "sk_ino": "sk_ino?",
        "sk_drops": "sk_drops",
        "sk_ack_backlog": "sk_ack_backlog",
        "sk_max_ack_backlog": "sk_max_ack_backlog",
        "sk_type": "sk_type",
        "sk_protocol": "sk_protocol",
    },
    "request_sock": {"child": "sk"},
    "socket": {"sk": "sk"},
    "file": {"f_inode": "f_inode", "private_data": "private_data"},
    "inode": {"i_ino": "i_ino", "i_mode": "i_mode"},
    "inet_timewait_sock": {"tw_expires": "tw_timer.expires"},
    "bpf_iter_meta": {"seq": "seq"},
    "task_struct": {"group_leader": "group_leader", "start_boottime": "start_boottime"},
}
# What the programs of closes read and some more.
CENSUS_MEMBERS = {
    name: {**MEMBERS.get(name, {}), **_ADDED.get(name, {})} for name in {**MEMBERS, **_ADDED}
}


def macros_of(options: dict[str, Any], *, beside_closes: bool = False) -> list[str]:
    """Return the sizes of the maps, and the unit of the kernel's stamps, as macros.

    `beside_closes`: connections are followed as well, in the maps SHARED.
    """
    places = ("slots", "conn_max") if beside_closes else ()
    return [
        *(f"-D{name.upper()}={options[name]}" for name in places),
        f"-DSERVICES_MAX={options['ports_max']}",
        f"-DUSERS_MAX={options['ports_max']}",
        f"-DHOMES_MAX={options['states_max']}",
        f"-DSTATES_MAX={options['states_max']}",
        f"-DPORTS_MAX={options['ports_max']}",
        f"-DHZ={options['hz']}",
        f"-DPAGE_SIZE={os.sysconf('SC_PAGESIZE')}",
    ]


def attach(maps: dict[str, int], code: Callable[[bytes], bytes], btf: Btf) -> dict[str, int]:
    """Return the descriptors of maps, programs and links. Raises LoadError, BtfError.

    `code` returns the instructions of a function by its name.
    """
    fds = {f"census:map:{name}": fd for name, fd in maps.items()}
    for name, function, iterator in PROGRAMS:
        btf_id = btf.find(iterator, KIND_FUNC)
        if btf_id is None:
            raise BtfError(f"this kernel has no iterator {iterator}")
        program = bpf.load_iterator(name, code(function.encode()), btf_id)
        fds[f"census:prog:{name}"] = program
        fds[f"census:iter:{name}"] = bpf.link_iterator(program)
    return fds
