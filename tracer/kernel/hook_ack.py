# SPDX-License-Identifier: Apache-2.0
"""Attach the program that sees the ACK of the peer's FIN leave, as well as this kernel allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import bpf, hooks
from .btf import KIND_FUNC
from .kprobe import PMU, attach_kprobe

if TYPE_CHECKING:
    from collections.abc import Callable

    from .btf import Btf

__all__ = ("attach_hook",)


def attach_hook(
    code_of: Callable[[bytes], bytes], btf: Btf
) -> tuple[dict[str, Any], dict[str, int]]:
    """Return what the manifest tells of the hook, and its descriptors: none for counters.

    `code_of` gives the instructions of a function in hooks.h.
    """
    refusals = {}
    for rung in hooks.plan(kernel_support(btf)):
        if rung.refusal is not None:
            refusals[rung.mechanism] = rung.refusal
            continue
        try:
            return hooks.told(rung, refusals), attached(rung, code_of, btf)
        except bpf.LoadError as error:
            refusals[rung.mechanism] = f"{error.filename}: {error.strerror}"
    raise AssertionError("the last rung needs nothing")


def kernel_support(btf: Btf) -> hooks.KernelSupport:
    """Return what this kernel has for hooks."""
    numbers = {name: btf.find(name, KIND_FUNC) for name in hooks.FUNCTIONS}
    return hooks.KernelSupport(
        functions={name: number for name, number in numbers.items() if number is not None},
        knows_registers=btf.member("pt_regs", "di") is not None,
        has_kprobe_pmu=PMU.exists(),
        highest=hooks.highest_allowed(),
    )


def attached(rung: hooks.Rung, code_of: Callable[[bytes], bytes], btf: Btf) -> dict[str, int]:
    """Load and attach by this mechanism; return the descriptors. Raises bpf.LoadError."""
    if rung.mechanism == hooks.COUNTERS:
        return {}
    code = code_of(f"on_send_ack_{rung.mechanism}".encode())
    fds: dict[str, int] = {}
    for function in rung.functions:
        if rung.mechanism == hooks.KPROBE:
            program = bpf.load_kprobe(function, code)
            link = attach_kprobe(function, program)
        else:
            program = bpf.load_fentry(function, code, btf.find(function, KIND_FUNC) or 0)
            link = bpf.attach_raw_tracepoint(function, program)
        fds |= {f"prog:{function}": program, f"link:{function}": link}
    return fds
