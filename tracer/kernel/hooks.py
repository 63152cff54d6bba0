# SPDX-License-Identifier: Apache-2.0
"""The ladder of hooks: what kernel functions tell that no tracepoint does.

fentry costs least, a kprobe works on more kernels, and without either there is what counters
and the census say. Facts (KernelSupport), decision (plan: pure, a reason with every "no") and
effect (the loader tries what the plan leaves) are apart.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tracer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = (
    "ACCEPTED",
    "ACK_SENT",
    "COUNTERS",
    "FENTRY",
    "HOOKS",
    "KPROBE",
    "LADDER",
    "NONE",
    "TIME_WAIT",
    "Hook",
    "KernelSupport",
    "Rung",
    "in_force",
    "plan",
    "told",
)

FENTRY, KPROBE, COUNTERS, NONE = "fentry", "kprobe", "counters", "none"
LADDER: Final = (FENTRY, KPROBE, COUNTERS)
LIMIT: Final = "FOURWAVE_HOOKS"


class Hook(NamedTuple):
    """Something to see. `programs`: by kernel function, the program in bpf/ that runs on its entry.

    `all_needed`: one function less and it could not be told. `otherwise`: the mechanism that is
    left without it.
    """

    name: str
    programs: Mapping[str, str]
    all_needed: bool
    otherwise: str


# Some compilers build the second into the first, some only jump there; callers use both.
ACK_SENT: Final = Hook(
    "ack_sent",
    {"tcp_send_ack": "on_send_ack", "__tcp_send_ack": "on_send_ack"},
    all_needed=False,
    otherwise=COUNTERS,
)
ACCEPTED: Final = Hook(
    "accepted", {"security_sock_graft": "on_accept"}, all_needed=True, otherwise=NONE
)
TIME_WAIT: Final = Hook(
    "time_wait",
    {
        "tcp_timewait_state_process": "on_tw_segment",
        "tcp_twsk_unique": "on_tw_connect",
        "__inet_twsk_schedule": "on_tw_rearm",
        "inet_twsk_deschedule_put": "on_tw_end",
    },
    all_needed=True,
    otherwise=NONE,
)
HOOKS: Final = (ACK_SENT, ACCEPTED, TIME_WAIT)


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
    """Return what the environment allows, all when it says nothing. Raises UsageError."""
    wanted = os.environ.get(LIMIT) or FENTRY
    if wanted not in LADDER:
        raise UsageError(f"{LIMIT}={wanted}: {', '.join(LADDER[:-1])} or {LADDER[-1]} is needed")
    return wanted


def plan(hook: Hook, support: KernelSupport) -> list[Rung]:
    """Return the rungs from the best down; what is always there comes last."""
    functions = tuple(name for name in hook.programs if name in support.functions)
    rungs = [Rung(one, functions, _refusal(hook, support, one)) for one in (FENTRY, KPROBE)]
    return [*rungs, Rung(hook.otherwise)]


def _refusal(hook: Hook, support: KernelSupport, mechanism: str) -> str | None:
    if LADDER.index(mechanism) < LADDER.index(support.highest):
        return f"not allowed by {LIMIT}={support.highest}"
    missing = [name for name in hook.programs if name not in support.functions]
    if missing and (hook.all_needed or len(missing) == len(hook.programs)):
        return f"the kernel's types do not name {' or '.join(missing)}"
    if mechanism == KPROBE and not support.has_kprobe_pmu:
        return "the kernel has no kprobes"
    if mechanism == KPROBE and not support.knows_registers:
        return "where this machine passes a function's arguments is not known here"
    return None


def told(hook: Hook, chosen: Rung, refusals: Mapping[str, str]) -> dict[str, Any]:
    """Return what the manifest says of a hook: its mechanism, and why none better."""
    return {
        "hook": hook.name,
        "mechanism": chosen.mechanism,
        "functions": list(chosen.functions),
        "reason": "; ".join(f"{name}: {why}" for name, why in refusals.items()),
    }


def in_force(manifest: Mapping[str, Any], hook: Hook) -> bool:
    """Say by the manifest whether functions are hooked for this."""
    return any(
        one["hook"] == hook.name and one["mechanism"] != hook.otherwise for one in manifest["hooks"]
    )
