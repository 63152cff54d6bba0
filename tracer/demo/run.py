# SPDX-License-Identifier: Apache-2.0
"""Trace the actor's scenarios, show each as a ladder, and hold every verdict to what was made."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tracer import runs
from tracer.demo.scenarios import SCENARIOS, Scenario
from tracer.outputs import ladder
from tracer.outputs.text import BOLD, GREEN, RED, paint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracer.close import Close
    from tracer.kernel.source import KernelSource
    from tracer.session import Session
    from tracer.session_live import Live, Stop

ALL_S: Final = 18.0  # an actor that takes longer is broken
CLOSE_S: Final = 2.0  # a close that has not come so long after it was made will not come
WIDTH: Final = 72
BY_NAME: Final = {scenario.name: scenario for scenario in SCENARIOS}


@dataclass(slots=True)
class Collector:
    """A view that keeps what comes from one network namespace, by (laddr, lport, raddr, rport)."""

    netns: int
    found: dict[tuple[str, int, str, int], Close] = field(default_factory=dict)

    def closes(self, closes: list[Close]) -> None:
        """Keep the closes; the actor makes a few dozen."""
        for close in closes:
            key = (close.laddr, close.lport, close.raddr, close.rport)
            self.found[key] = close


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one scenario; `wrong` has one sentence per deviation."""

    scenario: Scenario
    closes: dict[str, Close]
    wrong: list[str]
    skipped: str | None = None


class Actor:
    """The child that makes the closes; its answers are read without blocking."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tracer.demo.actor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C is for us; we end it
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._to, self._from = self._child.stdin, self._child.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._from, selectors.EVENT_READ)
        self._rest = b""
        self.ended = False

    def greeting(self) -> dict[str, Any]:
        """Wait for the line that says where it lives."""
        line: dict[str, Any] = json.loads(self._from.readline())
        return line

    def go(self) -> None:
        """Let it begin."""
        self._to.write(b"go\n")
        self._to.close()

    def answers(self) -> Iterator[dict[str, Any]]:
        """Yield what it has said since the last time."""
        while not self.ended and self._selector.select(0):
            chunk = os.read(self._from.fileno(), 65_536)
            self.ended = not chunk
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            yield from (json.loads(line) for line in lines)

    def close(self) -> None:
        """End it, whatever it does."""
        self._child.kill()
        self._child.wait()
        self._selector.close()
        self._from.close()


def demonstrate(*, as_json: bool, color: bool) -> int:
    """Show every scenario; return 0 when each verdict is what was made, 1 when not.

    Raises KeyboardInterrupt when there was none yet.
    """
    outcomes: list[Outcome] = []
    try:
        for outcome in _outcomes():
            outcomes.append(outcome)
            text = _as_json(outcome) if as_json else _as_text(outcome, color=color)
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
    except KeyboardInterrupt:
        if not outcomes:
            raise
    runs.tell(_verdict(outcomes))
    return 0 if outcomes and not any(outcome.wrong for outcome in outcomes) else 1


def _outcomes() -> Iterator[Outcome]:
    with runs.attach() as source, contextlib.closing(Actor()) as actor:
        greeting = actor.greeting()
        if not greeting["own"]:
            runs.tell("no network namespace of its own is permitted: using the host's loopback")
        yield from _trace(source, actor, Collector(greeting["netns"]))


def _trace(source: KernelSource, actor: Actor, collector: Collector) -> Iterator[Outcome]:
    from tracer import filters, session, session_live  # noqa: PLC0415 - numpy

    with session_live.Stop() as stop:
        live = session_live.Live(source, session.Limits(duration_s=ALL_S))
        chosen = filters.Filter(netns=(collector.netns,))
        run = session.Session(source.host, view=collector, chosen=chosen)
        actor.go()
        yield from _follow(actor, collector, run, live, stop)


# One turn per tick: feed what the kernel has, hear what the actor says, show what is complete.
def _follow(
    actor: Actor, collector: Collector, run: Session, live: Live, stop: Stop
) -> Iterator[Outcome]:
    waiting: list[tuple[float, dict[str, Any]]] = []
    told: set[str] = set()
    for batch in live.batches(stop):
        run.feed(batch)
        waiting += [(time.monotonic() + CLOSE_S, answer) for answer in actor.answers()]
        while waiting and _complete(*waiting[0], collector):
            answer = waiting.pop(0)[1]
            told.add(answer["scenario"])
            yield _judge(answer, collector)
        if actor.ended and not waiting:
            break
    if stop.asked:
        raise KeyboardInterrupt
    for scenario in SCENARIOS:
        if scenario.name not in told:
            yield Outcome(scenario, {}, ["it did not come to its end"])


def _complete(deadline: float, answer: dict[str, Any], collector: Collector) -> bool:
    keys = [tuple(end) for end in answer.get("ends", {}).values()]
    return all(key in collector.found for key in keys) or time.monotonic() > deadline


def _judge(answer: dict[str, Any], collector: Collector) -> Outcome:
    scenario = BY_NAME[answer["scenario"]]
    if "skipped" in answer:
        return Outcome(scenario, {}, [], answer["skipped"])
    if "failed" in answer:
        return Outcome(scenario, {}, [f"it could not be made: {answer['failed']}"])
    ends = {end: tuple(key) for end, key in answer["ends"].items()}
    closes = {end: collector.found[key] for end, key in ends.items() if key in collector.found}
    wrong = [text for end in scenario.wanted for text in _deviations(scenario, end, closes)]
    return Outcome(scenario, closes, wrong)


def _deviations(scenario: Scenario, end: str, closes: dict[str, Close]) -> Iterator[str]:
    if end not in closes:
        yield f"the {end}'s close was not reported"
        return
    for key, wanted in scenario.wanted[end].items():
        seen = _value(closes[end], key)
        if seen != wanted:
            yield f"the {end}'s {key} is {seen}, but was made {wanted}"


def _value(close: Close, key: str) -> object:
    if key == "closer":
        return close.closer.how if close.closer else None
    value: object = getattr(close, key)
    return value


def _as_json(outcome: Outcome) -> str:
    return json.dumps(
        {
            "scenario": outcome.scenario.name,
            "title": outcome.scenario.title,
            "ok": None if outcome.skipped else not outcome.wrong,
            "skipped": outcome.skipped,
            "wrong": outcome.wrong,
            "closes": {end: asdict(close) for end, close in outcome.closes.items()},
        }
    )


def _as_text(outcome: Outcome, *, color: bool) -> str:
    title = textwrap.wrap(outcome.scenario.title, WIDTH)
    lines = [paint(text, BOLD if color else "") for text in title]
    if outcome.skipped:
        return "\n".join([*lines, "", f"  skipped: {outcome.skipped}", ""])
    shown = next(iter(outcome.closes.values()), None)
    if shown is not None:
        lines += ["", *ladder.draw(shown, encoding=sys.stdout.encoding), ""]
    for end, close in outcome.closes.items():
        lines += _words(end, close)
    return "\n".join([*lines, *_marks(outcome, color=color), ""])


def _words(end: str, close: Close) -> list[str]:
    facts = [close.kind, close.handshake, close.fin_ack and f"ACK: {close.fin_ack}", close.cause]
    verdict = ", ".join(dict.fromkeys(fact for fact in facts if fact))
    why = textwrap.wrap(close.why, WIDTH - 10)
    return [f"  {end:<7} {verdict}", *(f"          {line}" for line in why)]


def _marks(outcome: Outcome, *, color: bool) -> list[str]:
    if not outcome.wrong:
        return [paint("  as made", GREEN if color else "")]
    return [paint(f"  WRONG: {text}", RED if color else "") for text in outcome.wrong]


def _verdict(outcomes: list[Outcome]) -> str:
    wrong = [outcome.scenario.name for outcome in outcomes if outcome.wrong]
    skipped = [outcome.scenario.name for outcome in outcomes if outcome.skipped]
    right = len(outcomes) - len(wrong) - len(skipped)
    parts = [f"{right} of {len(outcomes)} scenarios were judged as they were made"]
    parts += ["ended early"] if len(outcomes) < len(SCENARIOS) else []
    parts += [f"skipped: {', '.join(skipped)}"] if skipped else []
    parts += [f"WRONG: {', '.join(wrong)}"] if wrong else []
    return "; ".join(parts)
