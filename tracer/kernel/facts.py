# SPDX-License-Identifier: Apache-2.0
"""What a kernel has beyond members of structures, asked of its BTF or tried: macros of bpf/."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from tracer.kernel import bpf
from tracer.kernel.btf import KIND_FUNC

if TYPE_CHECKING:
    from tracer.kernel.btf import Btf

__all__ = ("facts", "knows_sender")


def facts(btf: Btf) -> list[str]:
    """Return the macros that say what this host has beyond members of structures."""
    helpers = btf.enum("bpf_func_id")
    has = {
        "HAS_RST_REASON": bool(btf.enum("sk_rst_reason")),
        "HAS_CURRENT_TASK_BTF": "BPF_FUNC_get_current_task_btf" in helpers,
        "HAS_SOCK_FROM_FILE": "BPF_FUNC_sock_from_file" in helpers,
        "HAS_SOCKET_COOKIE": bool(btf.find("bpf_get_socket_ptr_cookie", KIND_FUNC)),
        "KNOWS_SENDER": knows_sender(btf),
        "HAS_CMPXCHG": bpf.knows_cmpxchg(),
        "STORES_IN_ORDER": platform.machine() == "x86_64",
    }
    return [name for name, there in has.items() if there]


def knows_sender(btf: Btf) -> bool:
    """Whether a program can tell which descriptor the running system call sends on.

    By the registers of x86-64, and Linux commit dd6e10fbd9fb ("bpf: Add bpf_task_pt_regs()
    helper") (in v5.15).
    """
    return "BPF_FUNC_task_pt_regs" in btf.enum("bpf_func_id") and bool(
        btf.member("pt_regs", "orig_ax")
    )
