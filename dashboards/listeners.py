# SPDX-License-Identifier: Apache-2.0
"""Accept queues: who does not accept in time."""

from __future__ import annotations

from typing import Final

from dashboards.panels import ORANGE, RED, YELLOW, About, Query, lines, number, rows
from dashboards.promql import each, quantile
from tracer import metrics

LENGTH: Final = each(metrics.ACCEPT_QUEUE_LENGTH)
LIMIT: Final = each(metrics.ACCEPT_QUEUE_LIMIT)
DROPPED: Final = each(metrics.ACCEPT_QUEUE_OVERFLOWS)
# listen(fd, 0) has the limit 0.
FULL: Final = f"{LENGTH} / ({LIMIT} > 0)"
BY: Final = "by (instance, laddr, lport)"
AT: Final = "{{instance}} at {{laddr}} {{lport}}"

NOW: Final = (
    number(
        About(
            "Fullest accept queue",
            "percentunit",
            "Of its limit, at the last census. A full "
            "queue drops connections: the application accepts too slowly, or its backlog is "
            "too small.",
            limits=((0.5, YELLOW), (0.9, RED)),
            empty="No listeners",
            width=8,
        ),
        Query(f"max({FULL})"),
    ),
    number(
        About(
            "Connections dropped",
            "short",
            "By listeners, in the time shown. Clients see "
            "connects that take one, three, seven seconds, or fail. `fourwave listeners` says "
            "whose and why.",
            limits=((1, RED),),
            empty="No listeners",
            width=8,
        ),
        Query(f"sum(increase({DROPPED}[$__range]))"),
    ),
    number(
        About(
            "Listeners",
            "short",
            "That have a series of their own; the rest is folded.",
            empty="No listeners",
            width=8,
        ),
        Query(f"count({LENGTH})"),
    ),
)
WHERE: Final = (
    lines(
        About(
            "Accept queues, of their limit",
            "percentunit",
            "Short peaks pass between two "
            "censuses; `fourwave listeners --over 60` looks more often.",
            limits=((0.9, ORANGE),),
            empty="No listeners",
            top=1,
        ),
        Query(f"topk(10, {FULL})", AT),
    ),
    lines(
        About(
            "Connections dropped, by listener",
            "cps",
            "Above 0: raise the argument of listen() "
            "and net.core.somaxconn, the smaller one counts; then find out why the application "
            "accepts too slowly.",
            empty="None dropped",
        ),
        Query(f"topk(10, rate({DROPPED}[$__rate_interval]) > 0)", AT),
    ),
    lines(
        About(
            "Waiting for accept()",
            "short",
            "A queue that never empties is an application that accepts slower than clients come.",
            empty="No listeners",
        ),
        Query(f"topk(10, {LENGTH})", AT),
    ),
    lines(
        About(
            "Wait for accept(), quantiles",
            "s",
            "How long connections were ready before the application took them, of those closed "
            "by now. Only where the kernel lets functions be hooked: see Tracer health.",
            empty="Not seen",
        ),
        *(Query(quantile(q, metrics.ACCEPT_WAIT), f"{q:.0%}") for q in (0.5, 0.9, 0.99)),
    ),
    rows(
        About(
            "Listeners now",
            "short",
            "The fullest first. Limit: the smaller of listen()'s backlog and net.core.somaxconn.",
            empty="No listeners",
            width=24,
        ),
        Query(f"max {BY} ({FULL})", "Full"),
        Query(f"max {BY} ({LENGTH})", "Waiting"),
        Query(f"min {BY} ({LIMIT})", "Limit"),
        Query(f"sum {BY} (increase({DROPPED}[$__range]))", "Dropped"),
        units={"Full": "percentunit"},
    ),
)
ROWS: Final = (("Now", NOW), ("Where", WHERE))
