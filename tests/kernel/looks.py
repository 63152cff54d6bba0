# SPDX-License-Identifier: Apache-2.0
"""Looking at the present until it is as expected, or the time is over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

from tests.pace import allowed_s
from tracer.wire_census import decode_census

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracer.census import Census
    from tracer.kernel.census import CensusSource

T = TypeVar("T")
DEADLINE_S: Final = allowed_s(30.0)
EVERY_S: Final = 0.1


def census(source: CensusSource, *inums: int) -> Census:
    """Take one."""
    return decode_census(source.take(set(inums), owners=True).data)


def until(look: Callable[[], T], holds: Callable[[T], bool]) -> T:
    """Look until it holds; fails with the last that was seen."""
    end = time.monotonic() + DEADLINE_S
    while not holds(seen := look()):
        assert time.monotonic() < end, f"never came true, last seen: {seen}"
        time.sleep(EVERY_S)
    return seen
