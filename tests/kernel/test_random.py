# SPDX-License-Identifier: Apache-2.0
"""Random teardowns from a seed: no disagreement between records, packets and what the ends did.

`make random SEED=… N=…` makes as many as you like.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.truth.random_check import run_random

if TYPE_CHECKING:
    from pathlib import Path

    from tests.truth.watch import Watch

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

SEED = int(os.environ.get("FOURWAVE_RANDOM_SEED", "20230"))
CONNECTIONS = 750
# Where the host ran no program for a transition, the kind or cause may be open; never more.
UNKNOWN_MAX = 1


@pytest.mark.parametrize(("where", "first"), [("loopback_net", 0), ("veth_net", CONNECTIONS)])
def test_random_teardowns(
    where: str,
    first: int,
    request: pytest.FixtureRequest,
    tracer_watch: Watch,
    tmp_path: Path,
) -> None:
    """750 connections whose ends race each other; the capture judges."""
    net = request.getfixturevalue(where)
    outcome = run_random(net, tmp_path, tracer_watch, SEED, range(first, first + CONNECTIONS))
    wrong = outcome.wrong(tracer_watch)
    assert not wrong, f"{wrong}\n{outcome.text()}"
    assert len(outcome.unknown) <= UNKNOWN_MAX, outcome.text()
    assert all(record["why"] for record in outcome.run.records)
