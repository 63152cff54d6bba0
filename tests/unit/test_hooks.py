# SPDX-License-Identifier: Apache-2.0
"""The ladder of hooks: what is tried on which kernel, and why the rest is not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.data.btf.blobs import BLOBS
from tracer import runs
from tracer.errors import UsageError
from tracer.kernel import bpf, hooking, support
from tracer.kernel.bpf import LoadError
from tracer.kernel.btf import Btf
from tracer.kernel.hooks import (
    ACCEPTED,
    ACK_SENT,
    COUNTERS,
    FENTRY,
    HOOKS,
    KPROBE,
    LADDER,
    NONE,
    TIME_WAIT,
    Hook,
    KernelSupport,
    Rung,
    highest_allowed,
    in_force,
    plan,
)

if TYPE_CHECKING:
    from collections.abc import Callable

BOTH = {"tcp_send_ack": 7, "__tcp_send_ack": 8}
EVERYTHING = KernelSupport(BOTH, knows_registers=True, has_kprobe_pmu=True)


def refusals(**facts: Any) -> dict[str, str | None]:
    defaults: dict[str, Any] = {"functions": BOTH, "knows_registers": True, "has_kprobe_pmu": True}
    rungs = plan(ACK_SENT, KernelSupport(**(defaults | facts)))
    return {rung.mechanism: rung.refusal for rung in rungs}


def test_the_best_comes_first_and_both_functions_are_taken() -> None:
    assert plan(ACK_SENT, EVERYTHING) == [
        Rung(FENTRY, ("tcp_send_ack", "__tcp_send_ack")),
        Rung(KPROBE, ("tcp_send_ack", "__tcp_send_ack")),
        Rung(COUNTERS),
    ]


@pytest.mark.parametrize(
    ("facts", "refused"),
    [
        ({}, {}),
        (
            {"functions": {}},
            dict.fromkeys(
                (FENTRY, KPROBE),
                "the kernel's types do not name tcp_send_ack or __tcp_send_ack",
            ),
        ),
        ({"has_kprobe_pmu": False}, {KPROBE: "the kernel has no kprobes"}),
        (
            {"knows_registers": False},
            {KPROBE: "where this machine passes a function's arguments is not known here"},
        ),
        ({"highest": KPROBE}, {FENTRY: "not allowed by FOURWAVE_HOOKS=kprobe"}),
        (
            {"highest": COUNTERS},
            {
                FENTRY: "not allowed by FOURWAVE_HOOKS=counters",
                KPROBE: "not allowed by FOURWAVE_HOOKS=counters",
            },
        ),
    ],
)
def test_every_no_has_its_reason(facts: dict[str, Any], refused: dict[str, str]) -> None:
    assert {name: why for name, why in refusals(**facts).items() if why} == refused


@pytest.mark.parametrize("hook", [ACCEPTED, TIME_WAIT], ids=lambda hook: hook.name)
def test_a_hook_that_needs_all_its_functions_is_refused_without_one(hook: Hook) -> None:
    *there, last = hook.programs
    lacking = EVERYTHING._replace(functions=dict.fromkeys(there, 1))
    why = f"the kernel's types do not name {last}"
    assert plan(hook, lacking) == [
        Rung(FENTRY, tuple(there), why),
        Rung(KPROBE, tuple(there), why),
        Rung(NONE),
    ]


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.name)
@pytest.mark.parametrize("kernel", BLOBS)
def test_every_kernel_here_has_the_functions_to_hook(kernel: str, hook: Hook) -> None:
    there = hooking.kernel_support(Btf(str(BLOBS[kernel])))
    assert plan(hook, there)[0].refusal is None
    assert there.knows_registers == (not kernel.endswith("arm64"))


@pytest.mark.parametrize(("said", "highest"), [*zip(LADDER, LADDER, strict=True), ("", FENTRY)])
def test_the_environment_limits_the_ladder(
    said: str, highest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOURWAVE_HOOKS", said)
    assert highest_allowed() == highest


def test_a_limit_that_is_none_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever mistypes "counters" must not have kernel functions hooked."""
    monkeypatch.setenv("FOURWAVE_HOOKS", "counter")
    with pytest.raises(UsageError, match="FOURWAVE_HOOKS=counter: fentry, kprobe or counters"):
        highest_allowed()


def refusing(*mechanisms: str) -> Callable[..., dict[str, int]]:
    def attached(_hook: Hook, rung: Rung, *_: object) -> dict[str, int]:
        if rung.mechanism in mechanisms:
            raise LoadError(1, f"load {rung.mechanism}")
        return {rung.mechanism: 3} if rung.functions else {}

    return attached


BOTH_REFUSED = "; ".join(
    f"{name}: load {name}: Operation not permitted" for name in (FENTRY, KPROBE)
)


@pytest.mark.parametrize(
    ("refused", "mechanism", "reason"),
    [
        ((), FENTRY, ""),
        ((FENTRY,), KPROBE, "fentry: load fentry: Operation not permitted"),
        ((FENTRY, KPROBE), COUNTERS, BOTH_REFUSED),
    ],
)
def test_a_refused_rung_leads_to_the_next(
    refused: tuple[str, ...], mechanism: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooking, "attached", refusing(*refused))
    told, fds = hooking.attach_hook(ACK_SENT, EVERYTHING, lambda _: b"")
    assert (told["hook"], told["mechanism"], told["reason"]) == ("ack_sent", mechanism, reason)
    assert fds == ({} if mechanism == COUNTERS else {mechanism: 3})
    assert in_force({"hooks": [told]}, ACK_SENT) == (mechanism != COUNTERS)


def test_a_function_that_cannot_be_hooked_takes_the_others_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of what a hook needs would count wrongly; none of it stays attached."""
    closed: list[int] = []
    refused = "inet_twsk_deschedule_put"

    def attach(name: str, program: int) -> int:
        if name == refused:
            raise LoadError(16, f"attach {name}")
        return program + 100

    monkeypatch.setattr(bpf, "load_fentry", lambda _name, _code, number: number)
    monkeypatch.setattr(bpf, "attach_raw_tracepoint", attach)
    monkeypatch.setattr(os, "close", closed.append)
    numbers = {name: at for at, name in enumerate(TIME_WAIT.programs, 10)}
    there = KernelSupport(numbers, knows_registers=False, has_kprobe_pmu=False)
    told, fds = hooking.attach_hook(TIME_WAIT, there, lambda _: b"")
    assert (told["mechanism"], fds) == (NONE, {})
    assert f"attach {refused}: Device or resource busy" in told["reason"]
    assert sorted(closed) == [10, 11, 12, 13, 110, 111, 112]


def about(**mechanisms: str) -> list[dict[str, Any]]:
    """Return what the manifest says of all hooks."""
    return [
        {
            "hook": hook.name,
            "mechanism": mechanisms.get(hook.name, hook.otherwise),
            "functions": list(hook.programs) if hook.name in mechanisms else [],
            "reason": "" if hook.name in mechanisms else "fentry: not here",
        }
        for hook in HOOKS
    ]


@pytest.mark.parametrize(
    ("mechanisms", "words"),
    [
        ({}, "evidence by counters, no hook for ACKs or accept() or TIME_WAIT"),
        (
            {"ack_sent": FENTRY, "time_wait": KPROBE},
            "evidence by counters and fentry and kprobe, no hook for accept()",
        ),
        (
            dict.fromkeys(("ack_sent", "accepted", "time_wait"), FENTRY),
            "evidence by counters and fentry",
        ),
    ],
)
def test_what_is_missing_is_in_the_ready_line(mechanisms: dict[str, str], words: str) -> None:
    assert runs._evidence(about(**mechanisms)) == words


def test_the_doctor_tells_of_every_hook() -> None:
    facts = [support._hook(hook) for hook in about(accepted=KPROBE)]
    assert [(fact.name, fact.ok) for fact in facts] == [
        ("ACK of the FIN", None),
        ("accept()", True),
        ("TIME_WAIT", None),
    ]
    assert facts[0].detail.endswith("without its time (fentry: not here)")
    assert facts[1].detail.endswith("is seen by kprobe on security_sock_graft")
    assert support._listed(["a", "b", "c"]) == "a, b and c"
