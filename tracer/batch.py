# SPDX-License-Identifier: Apache-2.0
"""What crosses from a source to the session: the same live and from a recording."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class BatchKind(IntEnum):
    """What the bytes of a batch are; the numbers are part of the recording format."""

    CLOSES = 1
    """Whole conn_records, each behind its 8 byte ring header, at a fixed stride."""
    COUNTERS = 2
    """JSON object: the totals of struct counters, summed over CPUs."""
    NAMES = 3
    """JSON object: {"cgroups": {"<id>": "/path"}}."""
    CLOCK = 4
    """JSON object: {"realtime_minus_monotonic_ns": int}."""
    CENSUS = 5
    """Every TCP socket of the chosen network namespaces: tracer/wire_census.py."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Bytes as they came; `mono_ns` is CLOCK_MONOTONIC when they were taken.

    `data` may lie in memory that its source will use again (Source.take).
    """

    kind: BatchKind
    mono_ns: int
    data: bytes | memoryview
