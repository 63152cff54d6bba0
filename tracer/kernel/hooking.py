# SPDX-License-Identifier: Apache-2.0
"""Attach the programs that run where kernel functions are entered, as far as this kernel allows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tracer.kernel import bpf, hooks
from tracer.kernel.btf import KIND_FUNC
from tracer.kernel.kprobe import PMU, attach_kprobe

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracer.kernel.btf import Btf

__all__ = ("attach_hooks",)


def attach_hooks(
    code_of: Callable[[bytes], bytes], btf: Btf
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return what the manifest tells of the hooks, and the descriptors of those in force.

    `code_of` gives the instructions of a function in bpf/.
    """
    support = kernel_support(btf)
    manifest, fds = [], {}
    for hook in hooks.HOOKS:
        about, theirs = attach_hook(hook, support, code_of)
        manifest.append(about)
        fds.update(theirs)
    return manifest, fds


def attach_hook(
    hook: hooks.Hook, support: hooks.KernelSupport, code_of: Callable[[bytes], bytes]
) -> tuple[dict[str, Any], dict[str, int]]:
    """Climb down the ladder until a rung holds; no descriptors when it is the last one."""
    refusals = {}
    for rung in hooks.plan(hook, support):
        if rung.refusal is not None:
            refusals[rung.mechanism] = rung.refusal
            continue
        try:
            return hooks.told(hook, rung, refusals), attached(hook, rung, support, code_of)
        except bpf.LoadError as error:
            refusals[rung.mechanism] = error.words
    raise AssertionError("the last rung needs nothing")


def kernel_support(btf: Btf) -> hooks.KernelSupport:
    """Return what this kernel has for hooks."""
    wanted = {name for hook in hooks.HOOKS for name in hook.programs}
    numbers = {name: btf.find(name, KIND_FUNC) for name in wanted}
    return hooks.KernelSupport(
        functions={name: number for name, number in numbers.items() if number is not None},
        knows_registers=btf.member("pt_regs", "di") is not None,
        has_kprobe_pmu=PMU.exists(),
        highest=hooks.highest_allowed(),
    )


def attached(
    hook: hooks.Hook,
    rung: hooks.Rung,
    support: hooks.KernelSupport,
    code_of: Callable[[bytes], bytes],
) -> dict[str, int]:
    """Load and attach by this mechanism: all functions or none. Raises bpf.LoadError."""
    fds: dict[str, int] = {}
    try:
        for function in rung.functions:
            code = code_of(f"{hook.programs[function]}_{rung.mechanism}".encode())
            if rung.mechanism == hooks.KPROBE:
                program = fds[f"prog:{function}"] = bpf.load_kprobe(function, code)
                fds[f"link:{function}"] = attach_kprobe(function, program)
            else:
                number = support.functions[function]
                program = fds[f"prog:{function}"] = bpf.load_fentry(function, code, number)
                fds[f"link:{function}"] = bpf.attach_raw_tracepoint(function, program)
    except bpf.LoadError:
        for fd in fds.values():
            os.close(fd)
        raise
    return fds
