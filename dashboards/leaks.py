# SPDX-License-Identifier: Apache-2.0
"""Who forgets to close: sockets in CLOSE_WAIT."""

from __future__ import annotations

from typing import Final

from dashboards.panels import RED, YELLOW, About, Query, heat_map, lines, number, rows
from dashboards.promql import quantile, rate, selector, summed
from tracer import metrics

LOOKING: Final = f"0 * count({selector(metrics.DETECTOR_UP, detector='close_wait_leak')} == 1)"
OLDEST: Final = selector(metrics.CLOSE_WAIT_OLDEST)
SUSPECTS: Final = selector(metrics.CLOSE_WAIT_SUSPECTS)
CLOSE_WAITS: Final = selector(metrics.SOCKETS, state="close_wait")

NOW: Final = (
    number(
        About(
            "In CLOSE_WAIT",
            "short",
            "Sockets whose peer has closed and that nobody here has "
            "closed yet. A few are normal: an application needs time to notice.",
            empty="No census",
            width=8,
        ),
        Query(f"sum({CLOSE_WAITS})"),
    ),
    number(
        About(
            "Of these, forgotten",
            "short",
            "What the detector takes for a leak. Run `fourwave "
            "leaks` on the host: it names the process, the peer and the way to close them.",
            limits=((1, YELLOW), (100, RED)),
            empty="No census",
            width=8,
        ),
        Query(f"{summed(metrics.CLOSE_WAIT_SUSPECTS)} or {LOOKING}"),
    ),
    number(
        About(
            "Oldest",
            "s",
            "How long the oldest socket in CLOSE_WAIT has heard nothing. Beyond "
            "an hour hardly any application still means to answer.",
            limits=((3600, YELLOW), (86400, RED)),
            empty="None in CLOSE_WAIT",
            width=8,
        ),
        Query(f"max({OLDEST})"),
    ),
)
WHO: Final = (
    lines(
        About(
            "Forgotten sockets by unit and process",
            "short",
            "A line that only grows is a leak "
            "of file descriptors: fix the program, or restart the unit before it reaches its "
            "limit (`systemctl show -p LimitNOFILE UNIT`).",
            empty="None forgotten",
        ),
        Query(f"sum by (instance, unit, comm) ({SUSPECTS})", "{{instance}} {{unit}} {{comm}}"),
    ),
    lines(
        About(
            "Oldest by unit and process",
            "s",
            "A straight line of slope 1 is one forgotten "
            "socket that grows old; saw teeth are a garbage collector that closes in the end.",
            empty="None in CLOSE_WAIT",
        ),
        Query(f"max by (instance, unit, comm) ({OLDEST})", "{{instance}} {{unit}} {{comm}}"),
    ),
    rows(
        About(
            "Who holds them now",
            "short",
            "The worst first. `fourwave leaks --comm NAME` on "
            "that host lists peers, ages and unread bytes.",
            empty="None forgotten",
            width=24,
        ),
        Query(f"sum by (instance, unit, comm) ({SUSPECTS})", "Forgotten"),
        Query(f"max by (instance, unit, comm) ({OLDEST})", "Oldest"),
        units={"Oldest": "s"},
    ),
)
COURSE: Final = (
    lines(
        About(
            "In CLOSE_WAIT by host",
            "short",
            "Growth that does not follow the load is a leak. "
            "The alert FourwaveCloseWaitGrowing looks at the same.",
            empty="No census",
        ),
        Query(f"sum by (instance) ({CLOSE_WAITS})", "{{instance}}"),
    ),
    lines(
        About(
            "Growth of CLOSE_WAIT",
            "short",
            "Sockets more, or fewer, per minute, over the last "
            "half hour. Above 0 for hours: see who holds them above.",
            empty="No census",
        ),
        Query(f"60 * sum by (instance) (deriv({CLOSE_WAITS}[30m]))", "{{instance}}"),
    ),
    heat_map(
        About(
            "Time in CLOSE_WAIT, of closed sockets",
            "cps",
            "How long the peer's FIN waited. A "
            "band that moves up is an application that gets slower at closing.",
        ),
        Query(rate(metrics.CLOSE_WAIT, "le", "_bucket"), "{{le}}"),
    ),
    lines(
        About(
            "Time in CLOSE_WAIT, quantiles",
            "s",
            "Of sockets that are closed by now; those still open are above.",
            empty="None closed",
        ),
        *(Query(quantile(q, metrics.CLOSE_WAIT), f"{q:.0%}") for q in (0.5, 0.9, 0.99)),
    ),
)
ROWS: Final = (("Now", NOW), ("Who", WHO), ("How it went", COURSE))
