# SPDX-License-Identifier: Apache-2.0
"""What the maker of the traffic meant, held against packets and against records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.truth.compare import packet_lines, record_key, record_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.truth.bench import Run
    from tests.truth.compare import Key, Record
    from tests.truth.judge import Ending, Truth
    from tests.truth.scenario import Expect, Scenario
    from tests.truth.sockets import Made


def expectations(
    entry: Scenario,
    made: Iterable[Made],
    *,
    server_first: bool,
) -> Iterator[tuple[Key, Expect, bool]]:
    """Yield (4-tuple of the end, what it must show, whether the timing was as meant)."""
    client, server = entry.expected(server_first=server_first)
    for one in made:
        for expect, local, remote in ((client, *_ends(one)), (server, *_ends(one)[::-1])):
            if expect is not None:
                yield (one.family, *local, *remote), expect, one.timely


def _ends(made: Made) -> tuple[tuple[str, int], tuple[str, int]]:
    return made.client, made.server


def _meets(ending: Ending, expect: Expect) -> bool:
    return (
        ending.kind == expect.kind
        and (expect.handshake is None or expect.handshake in ending.handshake)
        and (expect.fin_ack is None or expect.fin_ack in ending.fin_ack)
    )


def ends_as_meant(entry: Scenario, run: Run, *, server_first: bool) -> set[Key]:
    """Return the ends that were in time, and whose packets show what was meant."""
    truths: dict[Key, Truth] = {truth.key: truth for truth in run.truths}
    return {
        key
        for key, expect, timely in expectations(entry, run.made, server_first=server_first)
        if timely and key in truths
        if any(_meets(ending, expect) for ending in truths[key].endings)
    }


def packets_against_intent(entry: Scenario, run: Run, *, server_first: bool) -> list[str]:
    """Return what the packets show otherwise than meant: an error of the bench, not the tracer."""
    truths: dict[Key, Truth] = {truth.key: truth for truth in run.truths}
    found = []
    for key, expect, timely in expectations(entry, run.made, server_first=server_first):
        truth = truths.get(key)
        if truth is None:
            found.append(f"no packets for {key}")
        elif timely and not any(_meets(ending, expect) for ending in truth.endings):
            found.append("\n".join([f"meant {expect}", *packet_lines(truth)]))
    return found


def records_against_intent(
    entry: Scenario, run: Run, *, server_first: bool, told: bool = False
) -> list[str]:
    """Return what the records say otherwise than meant, beyond what packets can show.

    `told`: the tracer said by itself that it lost as many closes as are missing.
    """
    records = {record_key(record): record for record in run.records}
    found = []
    for key, expect, timely in expectations(entry, run.made, server_first=server_first):
        record = records.get(key)
        if record is None and told:
            continue
        wrong = ["missing"] if record is None else list(_differences(record, expect, timely))
        if wrong:
            lines = record_lines(record) if record is not None else [str(key)]
            found.append("\n".join([f"{', '.join(wrong)}: meant {expect}", *lines]))
    return found


# What answered too late may have met another state, a mini-socket instead of an orphan: then it is
# another kind of close than was meant, and the packets alone are its judge.
def _differences(record: Record, expect: Expect, timely: bool) -> Iterator[str]:
    same_kind = record["kind"] == expect.kind
    if timely and not same_kind:
        yield "kind"
    for name in ("handshake", "fin_ack"):
        meant = getattr(expect, name)
        # null is counted as undecided elsewhere
        if timely and meant is not None and record[name] not in (meant, None):
            yield name
    if same_kind and expect.cause is not None and record["cause"] != expect.cause:
        yield "cause"
    if same_kind and expect.time_wait is not None and record["time_wait"] != expect.time_wait:
        yield "time_wait"
    if expect.how is not None and (record["closer"] or {}).get("how") != expect.how:
        yield "how"
