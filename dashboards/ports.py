# SPDX-License-Identifier: Apache-2.0
"""Local ports towards each destination, and the TIME_WAITs that hold them."""

from __future__ import annotations

from typing import Final

from dashboards.panels import ORANGE, RED, YELLOW, About, Query, lines, number, rows
from dashboards.promql import each, gained, rate, ratio, selector, summed
from tracer import metrics

AVAILABLE: Final = each(metrics.LOCAL_PORTS_AVAILABLE)
USED: Final = each(metrics.LOCAL_PORTS_USED)
TIME_WAITS: Final = each(metrics.TIME_WAIT_SOCKETS)
TAKEN: Final = ratio(USED, f"{USED} + {AVAILABLE}")
ROOM_TAKEN: Final = ratio(selector(metrics.TIME_WAIT_USED), selector(metrics.TIME_WAIT_LIMIT))
BY: Final = "by (instance, raddr, rport)"
TOWARDS: Final = "{{instance}} to {{raddr}} {{rport}}"
# What is free now, and goes down: by when there is none.
FALLING: Final = f"(-deriv({AVAILABLE}[15m]) > 0)"

NOW: Final = (
    number(
        About(
            "Taken at the tightest",
            "percentunit",
            "Of the local ports towards one destination. "
            "At 100 % connect() fails with EADDRNOTAVAIL. Keep connections open and use them "
            "again, let the other side close first, or widen net.ipv4.ip_local_port_range.",
            limits=((0.8, YELLOW), (0.95, RED)),
            empty="No outbound connections",
            width=6,
        ),
        Query(f"max({TAKEN})"),
    ),
    number(
        About(
            "Connects that found none",
            "short",
            "connect() failed with EADDRNOTAVAIL, in the time shown. `fourwave ports` on the host "
            "says towards which destination.",
            limits=((1, RED),),
            empty="No tracer",
            width=6,
        ),
        Query(gained(metrics.LOCAL_PORTS_EXHAUSTED)),
    ),
    number(
        About(
            "TIME_WAIT, of its limit",
            "percentunit",
            "Of the network namespace that is nearest to its net.ipv4.tcp_max_tw_buckets. "
            "At 100 % connections end without TIME_WAIT.",
            limits=((0.8, YELLOW), (0.9, RED)),
            empty="No census",
            width=6,
        ),
        Query(f"max({ROOM_TAKEN})"),
    ),
    number(
        About(
            "Ended without TIME_WAIT",
            "short",
            "For want of room, in the time shown, in all network namespaces: late segments may "
            "hit a new connection. Raise net.ipv4.tcp_max_tw_buckets where `fourwave ports` on "
            "the host says so.",
            limits=((1, RED),),
            empty="No census",
            width=6,
        ),
        Query(gained(metrics.TIME_WAIT_OVERFLOWS)),
    ),
)
WHERE: Final = (
    lines(
        About(
            "Ports taken, by destination",
            "percentunit",
            "TIME_WAIT included: each holds its port for a minute after the close.",
            limits=((0.8, YELLOW), (0.95, RED)),
            empty="No outbound connections",
            top=1,
        ),
        Query(f"topk(10, {TAKEN})", TOWARDS),
    ),
    lines(
        About(
            "Ports run out in",
            "s",
            "At the pace of the last quarter of an hour. Nothing shown "
            "is well: no destination loses ports.",
            limits=((1800, ORANGE),),
            empty="None is running out",
        ),
        Query(f"bottomk(10, ({AVAILABLE} / {FALLING}) < 86400)", TOWARDS),
    ),
    lines(
        About(
            "TIME_WAIT by destination",
            "short",
            "This host closed first and pays with a port "
            "for each. Fewer, if it keeps connections alive or lets the peer close first.",
            empty="None towards any destination",
            width=8,
        ),
        Query(f"topk(10, sum {BY} ({TIME_WAITS}))", TOWARDS),
    ),
    lines(
        About(
            "What becomes of TIME_WAIT",
            "cps",
            "peer_fin: entered by the peer's late FIN. restarted: the 60 s begin again. reused: "
            "connect() took its ports. ended: by a SYN, a RST or data. Only where the kernel "
            "lets functions be hooked: see Tracer health.",
            empty="Not seen",
            width=8,
        ),
        Query(rate(metrics.TIME_WAIT_CHANGES, "change") + " > 0", "{{change}}"),
        stacked=True,
    ),
    lines(
        About(
            "TIME_WAIT by host",
            "short",
            "Those of services as well, which cost memory and no local ports.",
            empty="No census",
            width=8,
        ),
        Query(summed(metrics.SOCKETS, "instance", state="time_wait"), "{{instance}}"),
    ),
    rows(
        About(
            "Destinations now",
            "short",
            "The most taken first. Free: of the source address that has fewest.",
            empty="No outbound connections",
            width=24,
        ),
        Query(f"max {BY} ({TAKEN})", "Taken"),
        Query(f"sum {BY} ({USED})", "Used"),
        Query(f"min {BY} ({AVAILABLE})", "Free"),
        Query(f"sum {BY} ({TIME_WAITS})", "TIME_WAIT"),
        units={"Taken": "percentunit"},
    ),
)
ROWS: Final = (("Now", NOW), ("Where", WHERE))
