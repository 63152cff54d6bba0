# SPDX-License-Identifier: Apache-2.0
"""What is kept under a tracer, told from the noise of a host that others use too.

Short loads in the order untraced, traced, traced, untraced: whatever drifts evenly
meanwhile falls out of their ratio, and what comes and goes is left to the median.
"""

from __future__ import annotations

import math
import random
import statistics
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

RESAMPLES: Final = 2000
OUTSIDE: Final = 0.05  # of the resamples: the interval holds 95 %


def ratio(untraced: Sequence[float], traced: Sequence[float]) -> float:
    """Return traced / untraced of one ABBA block, by geometric means."""
    return math.exp(
        statistics.mean(map(math.log, traced)) - statistics.mean(map(math.log, untraced))
    )


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return low, median and high: the median's bootstrap interval, the same at every call."""
    draw = random.Random(len(ratios))
    medians = sorted(
        statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES)
    )
    beyond = round(RESAMPLES * OUTSIDE / 2)
    return medians[beyond], statistics.median(ratios), medians[-1 - beyond]
