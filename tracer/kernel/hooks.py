# SPDX-License-Identifier: Apache-2.0
"""The ladder of hooks: how to see the ACK of the peer's FIN leave.

fentry costs least, a kprobe works on more kernels, and the socket's counters tell the same
without its time. Facts (KernelSupport), decision (plan: pure, a reason with every "no") and
effect (the loader tries what the plan leaves) are apart.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("COUNTERS", "FENTRY", "KPROBE", "LADDER", "KernelSupport", "Rung", "plan", "told")

FENTRY, KPROBE, COUNTERS = "fentry", "kprobe", "counters"
LADDER: Final = (FENTRY, KPROBE, COUNTERS)
# Some compilers build the second into the first, some only jump there; callers use both.
FUNCTIONS: Final = ("tcp_send_ack", "__tcp_send_ack")
HOOK: Final = "ack_sent"
LIMIT: Final = "FOURWAVE_HOOKS"


class KernelSupport(NamedTuple):
    """What this kernel has, as far as asking tells: `functions` are BTF numbers by name.

    `highest` is the best mechanism that may be used, for tests of the others.
    """

    functions: Mapping[str, int]
    knows_registers: bool
    has_kprobe_pmu: bool
    highest: str = FENTRY


class Rung(NamedTuple):
    """One way to hook; `refusal` says why it is not even tried."""

    mechanism: str
    functions: tuple[str, ...] = ()
    refusal: str | None = None


def highest_allowed() -> str:
    """Return what the environment allows, all when it says nothing or nonsense."""
    wanted = os.environ.get(LIMIT, FENTRY)
    return wanted if wanted in LADDER else FENTRY


def plan(support: KernelSupport) -> list[Rung]:
    """Return the rungs from the best down; the counters, which are always there, come last."""
    functions = tuple(name for name in FUNCTIONS if name in support.functions)
    rungs = [Rung(one, functions, _refusal(support, one)) for one in (FENTRY, KPROBE)]
    return [*rungs, Rung(COUNTERS)]


def _refusal(support: KernelSupport, mechanism: str) -> str | None:
    if LADDER.index(mechanism) < LADDER.index(support.highest):
        return f"not allowed by {LIMIT}={support.highest}"
    if not support.functions:
        return f"the kernel's types name neither {' nor '.join(FUNCTIONS)}"
    if mechanism == KPROBE and not support.has_kprobe_pmu:
        return "the kernel has no kprobes"
    if mechanism == KPROBE and not support.knows_registers:
        return "where this machine passes a function's first argument is not known here"
    return None


def told(chosen: Rung, refusals: Mapping[str, str]) -> dict[str, Any]:
    """Return what the manifest says of the hook: its mechanism, and why none better."""
    return {
        "hook": HOOK,
        "mechanism": chosen.mechanism,
        "functions": list(chosen.functions),
        "reason": "; ".join(f"{name}: {why}" for name, why in refusals.items()),
    }
