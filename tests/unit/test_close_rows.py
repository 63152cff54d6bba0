# SPDX-License-Identifier: Apache-2.0
"""Records as rows of plain integers: the same numbers as numpy reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.unit import builders as b
from tracer.classify import classify
from tracer.close_rows import Row, Verdict, rows_of
from tracer.tcp import Cause, Evidence, FinAck, Handshake, How, Kind
from tracer.verdict import VERDICT_DTYPE
from tracer.wire import decode_closes, encode_closes

if TYPE_CHECKING:
    from enum import IntEnum


def value(record: Any, path: str) -> object:
    """Return what numpy reads at a path as Row names it."""
    for name in path.split("__"):
        record = record[name]
    return record.tobytes() if record.ndim else int(record)


def test_rows_are_the_records() -> None:
    """Every field, through a strided view as the ring gives it."""
    records = decode_closes(encode_closes(b.noise(np.random.default_rng(3), 50)))
    verdicts = classify(records, b.HOST)
    rows = list(rows_of(records, verdicts))
    assert len(rows) == 50
    for (row, verdict), record, judged in zip(rows, records, verdicts, strict=True):
        assert row == tuple(value(record, path) for path in Row._fields)
        assert verdict == tuple(judged.tolist())


def test_a_verdict_is_whole() -> None:
    assert Verdict._fields == VERDICT_DTYPE.names


def test_a_record_has_its_verdict() -> None:
    records = b.noise(np.random.default_rng(3), 3)
    with pytest.raises(ValueError, match="shorter"):
        list(rows_of(records, classify(records[:2], b.HOST)))


@pytest.mark.parametrize("labelled", [Kind, Handshake, FinAck, Evidence, Cause, How])
def test_labels_can_stand_in_a_row(labelled: type[IntEnum]) -> None:
    """The tables of labels are indexed by the numbers."""
    assert [int(member) for member in labelled] == list(range(len(labelled)))
