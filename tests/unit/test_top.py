# SPDX-License-Identifier: Apache-2.0
"""Closes counted by process and service or destination, and the report of a recording."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from tests.unit import builders as b
from tracer import runs
from tracer.batch import Batch, BatchKind
from tracer.classify import judge
from tracer.cli import cli
from tracer.detectors import close_rates
from tracer.detectors.close_rates import CloseCounts, CloseGroup, CloseRates
from tracer.outputs import top
from tracer.recording import RecordingWriter
from tracer.tcp import ConnFlag
from tracer.verdict import Reason
from tracer.wire import encode_closes

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from tracer.wire import Records

SERVED = ConnFlag.OPENED_PASSIVE | ConnFlag.CLOSE_OWNED
OURS = ConnFlag.OPENED_ACTIVE | ConnFlag.CLOSE_OWNED


def closes(*made: Records) -> Records:
    return np.concatenate(made)


def counted(*batches: Records) -> CloseRates:
    rates = CloseRates()
    for batch in batches:
        rates.add(batch, judge(batch, b.HOST))
    return rates


def test_kinds_are_counted_per_group() -> None:
    """Four kinds of one process towards one destination are one row."""
    made = closes(b.passive(), b.passive_four(), b.active(), b.aborted(), b.reset(), b.timeout())
    made["closer"]["comm"] = made["opener"]["comm"] = list(b"web\0\0\0\0\0\0\0\0\0\0\0\0\0")
    made["netns"] = 7
    made["flags"] = made["flags"] & ~ConnFlag.OPENED_PASSIVE | ConnFlag.OPENED_ACTIVE
    rates = counted(made)
    total = {}
    for group, counts in rates.totals().items():
        assert (group.netns, group.rport) == (7, 80)
        total[group.comm] = counts
    assert sum(counts.closes for counts in total.values()) == 6
    assert sum(counts.passive for counts in total.values()) == 2
    assert sum(counts.active for counts in total.values()) == 1
    assert sum(counts.three_way for counts in total.values()) == 2
    assert sum(counts.resets for counts in total.values()) == 2
    assert sum(counts.failed for counts in total.values()) == 1


def test_an_abort_without_a_rst_is_no_reset() -> None:
    rates = CloseRates()
    made = closes(b.aborted(), b.aborted())
    rates.add(made, np.array([Reason.LINGER_ZERO, Reason.LINGER_ZERO_SILENT], np.uint8))
    assert [(one.closes, one.resets) for one in rates.totals().values()] == [(2, 1)]


def test_what_lies_behind_the_name_makes_no_group_of_its_own() -> None:
    """Before v5.17 the end of a longer name stays behind a shorter one."""
    made = closes(b.passive(flags=OURS), b.passive(flags=OURS))
    for row, name in zip(
        made, (b"web".ljust(16, b"\0"), b"web\0-init".ljust(16, b"\0")), strict=True
    ):
        row["closer"]["comm"] = row["opener"]["comm"] = list(name)
    assert [group.comm for group in counted(made).totals()] == ["web"]


def test_services_by_port_destinations_by_address_old_ones_by_neither() -> None:
    served = [b.passive(flags=SERVED, lport=443, rport=50_000 + i) for i in range(3)]
    towards = [b.passive(flags=OURS, lport=40_000 + i) for i in range(2)]
    old = [b.passive(flags=ConnFlag.CLOSE_OWNED, lport=i, rport=9 - i) for i in range(4)]
    totals = counted(closes(*served, *towards, *old)).totals()
    found = {(g.lport, g.raddr is None, g.rport): c.closes for g, c in totals.items()}
    assert found == {(443, True, None): 3, (None, False, 80): 2, (None, True, None): 4}


def test_lately_is_since_it_was_asked() -> None:
    rates = counted(closes(b.passive(), b.passive()))
    assert [c.closes for c in rates.lately().values()] == [2]
    assert rates.lately() == {}
    rates.add(b.passive(), judge(b.passive(), b.HOST))
    assert [c.closes for c in rates.lately().values()] == [1]
    assert [c.closes for c in rates.totals().values()] == [3]


def test_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is counted together: nothing is lost."""
    monkeypatch.setattr(close_rates, "GROUPS_MAX", 3)
    rates = counted(closes(*(b.passive(lport=port) for port in range(1, 11))))
    totals = rates.totals()
    assert sum(c.closes for c in totals.values()) == 10
    assert totals[close_rates.OTHERS].closes == 7


def test_nothing_counts_as_nothing() -> None:
    assert counted(b.passive()[:0]).totals() == {}


def test_table_fits() -> None:
    counts = CloseCounts(10**6, 10**6, 0, 1, 2, 10**5, 10**5)
    long = CloseGroup(1, "a-very-long-name", None, "2001:db8:1111:2222:3333:4444:5555:6666", 65_535)
    shown = top.as_lines([(long, counts)], 3, 60.0, 79, color=False)
    assert max(map(len, shown)) <= 79
    assert shown[-1] == "(2 groups not shown)"
    assert top.as_lines([], 0, 2.0, 79, color=False) == ["No connection ended in 2.0s."]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Return a recording of ten seconds."""
    path = tmp_path / "a.rec"
    with RecordingWriter(str(path), runs.recording_header(b.HOST)) as writer:
        data = encode_closes(closes(b.passive(), b.active(), b.aborted(), b.reset()))
        writer.write(Batch(BatchKind.CLOSES, 1 * 10**9, data))
        writer.write(Batch(BatchKind.CLOSES, 11 * 10**9, data))
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_report(recording: Path) -> None:
    result = invoke("report", recording)
    assert result.exit_code == 0
    assert "8 closes" in result.stdout
    objects = [
        json.loads(line) for line in invoke("report", "--json", recording).stdout.splitlines()
    ]
    assert sum(one["closes"] for one in objects) == 8
    assert {(one["v"], one["type"], one["span_s"]) for one in objects} == {(1, "close_rate", 10.0)}


def test_report_filters(recording: Path) -> None:
    result = invoke("report", "--json", "--kind", "abort", recording)
    assert sum(json.loads(line)["closes"] for line in result.stdout.splitlines()) == 2
