# SPDX-License-Identifier: Apache-2.0
"""The landing page: what a person wants to know at a glance, from the same samples."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tornado.template import Template

from tracer.metrics import (
    BUILD,
    CLOSE_WAIT_OLDEST,
    CLOSE_WAIT_SUSPECTS,
    CLOSES,
    DETECTOR_UP,
    HOOK,
    LOST_RECORDS,
    RESETS,
)
from tracer.outputs.text import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracer.metrics_declaration import Metric
    from tracer.samples import Labels, Samples

HANDSHAKES: Final = ("four_way", "three_way", "simultaneous", "none")
BROKEN: Final = {
    "four_way": "four_<wbr>way",
    "three_way": "three_<wbr>way",
    "simultaneous": "simul&shy;taneous",
}
"""Where a heading may go on below when the page is narrow."""
LEAKS_SHOWN: Final = 10
# Escapes what it is given: names are anybody's bytes.
TEMPLATE: Final = Template(
    Path(__file__).with_name("page.html").read_text(), autoescape="xhtml_escape"
)


@dataclass(frozen=True, slots=True)
class Leak:
    """Suspects of one process name in one unit."""

    unit: str
    comm: str
    count: int
    oldest: str


def as_html(samples: Samples | None, confinement: Mapping[str, str | None]) -> bytes:
    """Return the page; without samples it says that the tracer is silent.

    `confinement`: what the web process is held by, each with why it is not.
    """
    if samples is None:
        return TEMPLATE.generate(silent=True)
    closes = _values(samples, CLOSES)
    build = next(iter(_values(samples, BUILD)), ("", "", "", ""))
    return TEMPLATE.generate(
        silent=False,
        host=samples.page.get("host", ""),
        version=build[0],
        kernel=build[1],
        since=duration(max(0, round((time.time() - samples.created_s) * 1e6))),
        total=int(sum(closes.values())),
        kinds=_table(closes),
        handshakes=[BROKEN.get(shake, shake) for shake in HANDSHAKES],
        shares=_shares(closes),
        resets=_ranked(_values(samples, RESETS)),
        lost={where: int(count) for (where,), count in _values(samples, LOST_RECORDS).items()},
        hooks=list(_values(samples, HOOK)),
        confinement=confinement,
        detectors={name: bool(up) for (name,), up in _values(samples, DETECTOR_UP).items()},
        leaks=_leaks(samples),
        leaks_known=bool(_values(samples, DETECTOR_UP).get(("close_wait_leak",))),
    )


def _values(samples: Samples, metric: Metric) -> dict[Labels, float]:
    return samples.series.get(metric.name, {})


# Rows of kinds that occurred, each with its count per handshake.
def _table(closes: dict[Labels, float]) -> list[tuple[str, list[int]]]:
    kinds = dict.fromkeys(kind for (kind, _), count in closes.items() if count)
    return [(kind, [int(closes.get((kind, shake), 0)) for shake in HANDSHAKES]) for kind in kinds]


# Percentages of closes by FIN, in the order of HANDSHAKES.
def _shares(closes: dict[Labels, float]) -> list[tuple[str, float]]:
    sums = {
        wanted: sum(count for (_, shake), count in closes.items() if shake == wanted)
        for wanted in HANDSHAKES[:-1]
    }
    total = sum(sums.values())
    return [(shake, 100 * count / total) for shake, count in sums.items() if count]


def _ranked(counts: dict[Labels, float]) -> list[tuple[str, str, int]]:
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    return [(direction, cause, int(count)) for (direction, cause), count in ranked if count]


def _leaks(samples: Samples) -> list[Leak]:
    oldest = _values(samples, CLOSE_WAIT_OLDEST)
    found = [
        Leak(unit, comm, int(count), duration(round(oldest.get((unit, comm), 0) * 1e6)))
        for (unit, comm), count in _values(samples, CLOSE_WAIT_SUSPECTS).items()
        if count
    ]
    return sorted(found, key=lambda leak: -leak.count)[:LEAKS_SHOWN]
