# SPDX-License-Identifier: Apache-2.0
"""The ladder of hooks: what is tried on which kernel, and why the rest is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.data.btf.blobs import BLOBS
from tracer.kernel import hook_ack
from tracer.kernel.bpf import LoadError
from tracer.kernel.btf import Btf
from tracer.kernel.hooks import (
    COUNTERS,
    FENTRY,
    KPROBE,
    LADDER,
    KernelSupport,
    Rung,
    highest_allowed,
    plan,
)

if TYPE_CHECKING:
    from collections.abc import Callable

BOTH = {"tcp_send_ack": 7, "__tcp_send_ack": 8}
EVERYTHING = KernelSupport(BOTH, knows_registers=True, has_kprobe_pmu=True)


def refusals(**facts: Any) -> dict[str, str | None]:
    defaults = {"functions": BOTH, "knows_registers": True, "has_kprobe_pmu": True}
    return {rung.mechanism: rung.refusal for rung in plan(KernelSupport(**(defaults | facts)))}


def test_the_best_comes_first_and_both_functions_are_taken() -> None:
    assert plan(EVERYTHING) == [
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
                "the kernel's types name neither tcp_send_ack nor __tcp_send_ack",
            ),
        ),
        ({"has_kprobe_pmu": False}, {KPROBE: "the kernel has no kprobes"}),
        (
            {"knows_registers": False},
            {KPROBE: "where this machine passes a function's first argument is not known here"},
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


@pytest.mark.parametrize("kernel", BLOBS)
def test_every_kernel_here_has_a_function_to_hook(kernel: str) -> None:
    support = hook_ack.kernel_support(Btf(str(BLOBS[kernel])))
    assert plan(support)[0].refusal is None
    assert support.knows_registers == (not kernel.endswith("arm64"))


@pytest.mark.parametrize(("said", "highest"), [*zip(LADDER, LADDER, strict=True), ("?", FENTRY)])
def test_the_environment_limits_the_ladder(
    said: str, highest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOURWAVE_HOOKS", said)
    assert highest_allowed() == highest


def refusing(*mechanisms: str) -> Callable[..., dict[str, int]]:
    def attached(rung: Rung, *_: object) -> dict[str, int]:
        if rung.mechanism in mechanisms:
            raise LoadError(1, f"load {rung.mechanism}")
        return {rung.mechanism: 3}

    return attached


@pytest.mark.parametrize(
    ("refused", "mechanism", "reason"),
    [
        ((), FENTRY, ""),
        ((FENTRY,), KPROBE, "fentry: load fentry: Operation not permitted"),
        (
            (FENTRY, KPROBE),
            COUNTERS,
            "; ".join(f"{name}: load {name}: Operation not permitted" for name in (FENTRY, KPROBE)),
        ),
    ],
)
def test_a_refused_rung_leads_to_the_next(
    refused: tuple[str, ...], mechanism: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_ack, "attached", refusing(*refused))
    monkeypatch.setattr(hook_ack, "kernel_support", lambda _: EVERYTHING)
    told, fds = hook_ack.attach_hook(lambda _: b"", Btf(str(BLOBS["6.12-amd64"])))
    assert (told["hook"], told["mechanism"], told["reason"]) == ("ack_sent", mechanism, reason)
    assert fds == {mechanism: 3}
