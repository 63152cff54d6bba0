# SPDX-License-Identifier: Apache-2.0
"""A host with more sockets than a scrape could count: the census has its own time."""

from __future__ import annotations

import pytest

from tests.bench import load
from tests.bench.serve import crowded

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

TIME_WAIT = 196_000
CONNECTIONS = 4_000
SCRAPE_MAX_MS = 20.0
EXPOSITION_MAX_BYTES = 200_000


def test_a_scrape_does_not_wait_for_the_census() -> None:
    """A census every second, scrapes meanwhile; half of them have a processor in time."""
    load.build()
    seen = crowded(TIME_WAIT, CONNECTIONS)
    assert seen["sockets"] >= 0.95 * (TIME_WAIT + 2 * CONNECTIONS)
    assert seen["scrape_ms"]["median"] <= SCRAPE_MAX_MS
    assert seen["exposition_bytes"] <= EXPOSITION_MAX_BYTES
    assert seen["detectors_up"] == 6
