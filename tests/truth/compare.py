# SPDX-License-Identifier: Apache-2.0
"""Records against packets: what agrees, what does not, and that nothing is unaccounted for."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.truth.judge import Ending, Truth

Record = dict[str, Any]
Key = tuple[int, str, int, str, int]
# What a report shows of a record, besides `why`.
SHOWN = (
    *("opened", "kind", "handshake", "fin_ack", "evidence", "cause", "rst_reason", "err"),
    *("time_wait", "tx_bytes", "rx_bytes", "unread_bytes", "closer", "timeline_us"),
)
# What the sentence says of a change of state that no program was run for.
MISSED = "was missed"
LEFT_COLUMN = 100


def record_key(record: Record) -> Key:
    """Return (family, laddr, lport, raddr, rport)."""
    return tuple(record[name] for name in ("family", "laddr", "lport", "raddr", "rport"))


@dataclass(slots=True)
class Report:
    """The result of one comparison; `undecided` counts nulls and unknowns by field."""

    agreed: int = 0
    disagreed: list[tuple[Truth, Record, list[str]]] = field(default_factory=list)
    missing: list[Truth] = field(default_factory=list)
    extra: list[Record] = field(default_factory=list)
    undecided: list[tuple[Truth, Record, list[str]]] = field(default_factory=list)
    inconsistent: list[tuple[Record, list[str]]] = field(default_factory=list)

    @property
    def closes(self) -> int:
        """How many ends had a record."""
        return self.agreed + len(self.disagreed) + len(self.undecided)

    @property
    def right(self) -> bool:
        """True when every close is accounted for and no record contradicts the packets, or itself.

        A record may leave open what its evidence could not tell; that is `undecided`.
        """
        return not (self.disagreed or self.missing or self.extra or self.inconsistent)

    @property
    def unrun(self) -> int:
        """How many records are left open because the host ran no program for a transition.

        Some hosts run no BPF programs at all on top of certain threads. The tracer cannot
        see what happened then, but knows that something did, and says so in the record.
        """
        records = [record for _, record, _ in self.undecided]
        return sum(one["kind"] == "unknown" or MISSED in one["why"] for one in records)

    def summary(self) -> str:
        """One line of counts."""
        return (
            f"agreed {self.agreed}, disagreed {len(self.disagreed)}, "
            f"undecided {len(self.undecided)}, missing {len(self.missing)}, "
            f"extra {len(self.extra)}, inconsistent {len(self.inconsistent)}"
        )

    def text(self, limit: int = 10) -> str:
        """Everything a person needs to decide who is right, at most `limit` of each."""
        parts = [self.summary()]
        for title, cases in (("DISAGREED", self.disagreed), ("UNDECIDED", self.undecided)):
            for truth, record, fields in cases[:limit]:
                parts.append(f"--- {title}: {', '.join(fields)}")
                parts.append(case_lines(truth, record))
        for truth in self.missing[:limit]:
            parts += ["--- MISSING: no record", *packet_lines(truth)]
        for record in self.extra[:limit]:
            parts += ["--- EXTRA: no packets", *record_lines(record)]
        for record, broken in self.inconsistent[:limit]:
            parts += [f"--- INCONSISTENT: {', '.join(broken)}", *record_lines(record)]
        return "\n".join(parts)


def packet_lines(truth: Truth) -> list[str]:
    """Return the packets' side of a case."""
    (laddr, lport), (raddr, rport) = truth.local, truth.remote
    head = f"packets: local {laddr}:{lport} remote {raddr}:{rport} opened {truth.opened}"
    endings = [f"  or: {ending}" for ending in truth.endings] or ["  still open"]
    tail = f"  tx {truth.tx_bytes} rx {truth.rx_bytes.start}..{truth.rx_bytes.stop - 1}"
    packets = [f"  {segment}" for segment in truth.connection.segments[-14:]]
    return [head, *endings, tail, *packets]


def record_lines(record: Record) -> list[str]:
    """Return the tracer's side of a case."""
    head = "record: {laddr}:{lport} -> {raddr}:{rport} netns {netns}".format(**record)
    lines = [f"  {name} = {record.get(name)}" for name in SHOWN]
    return [head, *lines, f"  why: {record.get('why')}"]


def case_lines(truth: Truth, record: Record) -> str:
    """Return both views of one end, side by side."""
    return _two_columns(packet_lines(truth), record_lines(record))


def _two_columns(left: list[str], right: list[str]) -> str:
    height = max(len(left), len(right))
    left, right = (side + [""] * (height - len(side)) for side in (left, right))
    rows = []
    for one, two in zip(left, right, strict=True):
        chunks = [one[at : at + LEFT_COLUMN] for at in range(0, len(one), LEFT_COLUMN)] or [""]
        rows.append(f"{chunks[0]:<{LEFT_COLUMN}} | {two}".rstrip())
        rows += [f"{'    ' + chunk:<{LEFT_COLUMN}} |" for chunk in chunks[1:]]
    return "\n".join(rows)


def compare(truths: Iterable[Truth], records: Iterable[Record]) -> Report:
    """Match by 4-tuple, reuses of one 4-tuple in order of time, and judge every pair."""
    report = Report()
    waiting: dict[Key, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: str(record["at"])):
        waiting[record_key(record)].append(record)
    for truth in truths:
        queue = waiting.get(truth.key)
        if queue:
            _judge_pair(report, truth, queue.pop(0))
        elif not truth.may_be_open:
            report.missing.append(truth)
    report.extra = [record for queue in waiting.values() for record in queue]
    return report


def _judge_pair(report: Report, truth: Truth, record: Record) -> None:
    attempts = [(_against(ending, record)) for ending in truth.endings]
    wrong, open_ = min(attempts, key=lambda found: (len(found[0]), len(found[1])), default=([], []))
    if not truth.endings:
        wrong = ["closed, but the packets show it open"]
    wrong = wrong + _facts(truth, record)
    if record["opened"] is None and truth.opened is not None:
        open_ = [*open_, "opened"]
    if wrong:
        report.disagreed.append((truth, record, wrong))
    elif open_:
        report.undecided.append((truth, record, open_))
    else:
        report.agreed += 1


def _against(ending: Ending, record: Record) -> tuple[list[str], list[str]]:
    """Return (fields that contradict this ending, fields left undecided)."""
    if record["kind"] == "unknown":
        return [], ["kind"]
    timeline = record["timeline_us"]
    wrong = ["kind"] if record["kind"] != ending.kind else []
    for name, truth in (("rst_sent", ending.rst_sent), ("rst_received", ending.rst_received)):
        if truth != (timeline.get(name) is not None):
            wrong.append(name)
    if record["time_wait"] is not None and ending.time_wait not in (None, record["time_wait"]):
        wrong.append("time_wait")
    undecided = ["time_wait"] if record["time_wait"] is None and ending.time_wait else []
    for name in ("handshake", "fin_ack"):
        allowed: frozenset[str | None] = getattr(ending, name)
        if record[name] not in allowed:
            (undecided if record[name] is None else wrong).append(name)
    return wrong, undecided


def _facts(truth: Truth, record: Record) -> list[str]:
    wrong = []
    if record["opened"] not in (None, truth.opened):
        wrong.append("opened")
    if record["tx_bytes"] != truth.tx_bytes:
        wrong.append("tx_bytes")
    if record["rx_bytes"] not in truth.rx_bytes:
        wrong.append("rx_bytes")
    return wrong
