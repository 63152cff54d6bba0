# SPDX-License-Identifier: Apache-2.0
"""When a census is asked for."""

from __future__ import annotations

from tracer.serve_census import Timetable


def test_a_census_is_due_at_once_and_then_in_its_time() -> None:
    table = Timetable(30)
    assert table.due(1000, closes=0)
    assert not table.due(1029.9, closes=5)
    assert table.due(1030, closes=5)
    assert not table.due(1059.9, closes=9)


def test_half_as_often_while_nothing_closes() -> None:
    """And as soon as something did."""
    table = Timetable(30)
    assert table.due(1000, closes=5)
    assert not table.due(1059.9, closes=5)
    assert table.due(1060, closes=5)
    assert not table.due(1095, closes=5)
    assert table.due(1096, closes=6)
