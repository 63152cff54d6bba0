# SPDX-License-Identifier: Apache-2.0
"""Random connections: records against packets, and causes against what the ends did.

Packets cannot show why an end sent a RST; what it did to its socket can refute a cause.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.truth import bench
from tests.truth.compare import case_lines, record_key, record_lines
from tests.truth.judge import UNSET
from tests.truth.random_run import play

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.truth.compare import Key, Record
    from tests.truth.judge import Truth
    from tests.truth.netns import Net
    from tests.truth.random_end import Facts
    from tests.truth.random_run import Played
    from tests.truth.sockets import Made
    from tests.truth.watch import Watch

REPLAY = "replay: python -m tests.truth.random_main --net {net} --seed {seed} --index {index}"
# Nothing in a plan can lead to another.
CAUSES = frozenset(
    {None, "unread_data", "linger_zero", "data_after_close", "disconnect", "peer"},
)


@dataclass(slots=True)
class Outcome:
    """What one random run showed."""

    net: str
    run: bench.Run
    played: dict[Key, Played]
    refuted: list[tuple[Record, str]]

    def wrong(self, watch: Watch) -> list[str]:
        """Return what must not be: disagreements, causes that cannot be, closes unaccounted for.

        A host may refuse to run BPF programs in some contexts. A close that fell into one is
        accounted for when the tracer says by itself that it is lost.
        """
        report = self.run.report
        told = watch.accounts_for(len(report.missing), self.run.lost_before)
        found = (
            ("disagreed", len(report.disagreed)),
            ("refuted", len(self.refuted)),
            ("extra", len(report.extra)),
            ("missing and not told", 0 if told else len(report.missing)),
        )
        return [f"{count} {what}" for what, count in found if count]

    @property
    def unknown(self) -> list[Record]:
        """Records that leave the kind or the cause open."""
        records = self.run.records
        return [record for record in records if "unknown" in (record["kind"], record["cause"])]

    def tally(self) -> str:
        """One line: how many of each kind."""
        kinds = Counter(record["kind"] for record in self.run.records)
        return ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))

    def text(self, limit: int = 5) -> str:
        """Both views of whatever is wrong, the plan behind it, and how to make it again."""
        report = self.run.report
        parts = [report.summary()]
        for title, cases in (("DISAGREED", report.disagreed), ("UNDECIDED", report.undecided)):
            for truth, record, names in cases[:limit]:
                parts += [f"--- {title}: {', '.join(names)}", case_lines(truth, record)]
                parts += self._plan_lines(truth.key)
        for truth in report.missing[:limit]:
            parts += [f"--- MISSING: {truth.key}", *self._plan_lines(truth.key)]
        for record, what in [*((one, "EXTRA") for one in report.extra), *self.refuted][:limit]:
            parts += [f"--- {what}", *record_lines(record), *self._plan_lines(record_key(record))]
        return "\n".join(parts)

    def _plan_lines(self, key: Key) -> list[str]:
        played = self.played.get(key)
        if played is None:
            return ["no plan has this connection"]
        plan = played.plan
        return [*plan.lines(), REPLAY.format(net=self.net, seed=plan.seed, index=plan.index)]


def run_random(net: Net, folder: Path, watch: Watch, seed: int, indices: Iterable[int]) -> Outcome:
    """Make the connections of one seed, capture and judge them."""
    played: list[Played] = []

    def traffic() -> list[Made]:
        played.extend(play(net, seed, indices))
        return [one.made for one in played]

    run = bench.run(net, folder, traffic, watch)
    facts = _facts_of(played)
    truths = [_with_unseen_abort(truth, facts.get(truth.key)) for truth in run.truths]
    by_key = {key: one for one in played for key, _ in one.ends()}
    refuted = list(_refuted(run.records, facts))
    return Outcome(net.name, replace(run, truths=truths), by_key, refuted)


def _facts_of(played: Iterable[Played]) -> dict[Key, Facts]:
    # Of ports that were used twice nobody knows which record is whose.
    ends = [end for one in played for end in one.ends()]
    uses = Counter(key for key, _ in ends)
    return {key: facts for key, facts in ends if uses[key] == 1}


def _with_unseen_abort(truth: Truth, facts: Facts | None) -> Truth:
    """In LAST_ACK and CLOSING an abort sends nothing when all has been sent: no packet tells."""
    if facts is None or not (facts.linger_zero or facts.disconnected):
        return truth
    late = {"passive", "simultaneous", "reset"}
    two_fins = [e for e in truth.endings if e.kind in late and e.handshake != UNSET]
    aborts = [
        replace(e, kind="abort", handshake=UNSET, time_wait=False, rst_received=False)
        for e in two_fins
    ]
    return replace(truth, endings=(*truth.endings, *aborts))


def _refuted(records: Iterable[Record], facts: dict[Key, Facts]) -> Iterator[tuple[Record, str]]:
    for record in records:
        known = facts.get(record_key(record))
        found = _contradiction(record, known) if known else None
        if found:
            yield record, f"REFUTED: {found}"


def _contradiction(record: Record, facts: Facts) -> str | None:
    cause = record["cause"]
    left_bytes = record["rx_bytes"] - facts.read_bytes
    if cause not in CAUSES and cause != "unknown":
        return f"{cause} cannot be: nobody did that"
    if cause == "linger_zero" and not facts.linger_zero:
        return "SO_LINGER was never set to 0"
    if cause == "disconnect" and not facts.disconnected:
        return "nobody disconnected"
    if cause == "unread_data" and record["unread_bytes"] != left_bytes:
        return f"{left_bytes} bytes were left unread"
    return None
