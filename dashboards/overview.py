# SPDX-License-Identifier: Apache-2.0
"""The first dashboard: how connections end, and whether anything is wrong."""

from __future__ import annotations

from typing import Final

from dashboards.panels import ORANGE, RED, YELLOW, About, Query, heat_map, lines, number
from dashboards.promql import each, gained, quantile, rate, ratio, selector, summed
from tracer import metrics

# What the detector found when it found nothing: 0, as long as it looks.
LOOKING: Final = f"0 * count({selector(metrics.DETECTOR_UP, detector='close_wait_leak')} == 1)"
GRACEFUL: Final = rate(metrics.CLOSES, handshake="three_way|four_way")
AVAILABLE: Final = each(metrics.LOCAL_PORTS_AVAILABLE)
USED: Final = each(metrics.LOCAL_PORTS_USED)
FREE: Final = f"min({ratio(AVAILABLE, f'{AVAILABLE} + {USED}')})"
STATES: Final = "established|close_wait|time_wait|fin_wait1|fin_wait2|last_ack|closing"

GLANCE: Final = (
    number(
        About(
            "Closes",
            "cps",
            "Sockets that reach CLOSE each second; a connection within one host "
            "counts twice, once for each end.",
            width=4,
        ),
        Query(rate(metrics.CLOSES)),
    ),
    number(
        About(
            "Three-way share",
            "percentunit",
            "Of graceful closes, how many took three segments: "
            "the second side closed before its delayed ACK was due. A drop says that "
            "applications answer a FIN later than they did.",
            empty="None closed",
            width=4,
        ),
        Query(ratio(rate(metrics.CLOSES, handshake="three_way"), GRACEFUL)),
    ),
    number(
        About(
            "Closes by reset",
            "percentunit",
            "Aborts by this host and resets by peers, of all "
            "closes. Above a few percent look at the causes below.",
            limits=((0.05, YELLOW), (0.25, ORANGE)),
            empty="None closed",
            width=4,
        ),
        Query(ratio(rate(metrics.CLOSES, kind="abort|reset"), rate(metrics.CLOSES))),
    ),
    number(
        About(
            "Forgotten in CLOSE_WAIT",
            "short",
            "Sockets whose peer is gone and that nobody "
            "closes. The dashboard Leaks says who holds them.",
            limits=((1, YELLOW), (100, RED)),
            empty="No census",
            width=4,
        ),
        Query(f"{summed(metrics.CLOSE_WAIT_SUSPECTS)} or {LOOKING}"),
    ),
    number(
        About(
            "Ports free at the tightest",
            "percentunit",
            "Local ports still free towards the "
            "destination that has fewest. Near 0 connect() fails with EADDRNOTAVAIL: see Ports.",
            empty="No outbound connections",
            width=4,
        ),
        Query(FREE),
    ),
    number(
        About(
            "Closes lost",
            "short",
            "Closes the tracer knows it missed in the time shown. Not 0: "
            "see Tracer; all other figures are too low by as many.",
            limits=((1, ORANGE),),
            empty="No tracer",
            width=4,
        ),
        Query(gained(metrics.LOST_RECORDS)),
    ),
)
CLOSES: Final = (
    lines(
        About(
            "Closes by kind",
            "cps",
            "active: this host sent the first FIN and pays with "
            "TIME_WAIT. passive: the peer did. abort: this host sent a RST. reset: the peer "
            "did. refused and attempt_failed never were connections. `fourwave explain KIND` "
            "tells more of each.",
        ),
        Query(rate(metrics.CLOSES, "kind"), "{{kind}}"),
        stacked=True,
    ),
    lines(
        About(
            "Graceful closes by handshake",
            "cps",
            "How many segments the FINs took: three when "
            "the second FIN carries the ACK of the first, four when the ACK went ahead, and "
            "simultaneous when the FINs crossed.",
        ),
        Query(
            rate(metrics.CLOSES, "handshake", handshake="three_way|four_way|simultaneous"),
            "{{handshake}}",
        ),
        stacked=True,
    ),
    lines(
        About(
            "Three-way share",
            "percentunit",
            "Of graceful closes. It follows how fast the "
            "second side closes: compare it with deployments of the applications.",
            empty="None closed",
            top=1,
        ),
        Query(
            ratio(
                rate(metrics.CLOSES, "instance", handshake="three_way"),
                rate(metrics.CLOSES, "instance", handshake="three_way|four_way"),
            ),
            "{{instance}}",
        ),
    ),
    lines(
        About(
            "What carried the ACK of the first FIN",
            "cps",
            "fin: the second FIN itself. pure: "
            "an ACK of its own, after the delay. data: the second side still had something to "
            "say.",
        ),
        Query(rate(metrics.FIN_ACKS, "carrier"), "{{carrier}}"),
        stacked=True,
    ),
    lines(
        About(
            "ACKs of peers' FINs",
            "cps",
            "Where the peer closed first. merged: our FIN carried it. "
            "timer: the delayed-ACK timer sent it, as the application closed later. quick_route, "
            "hole_filled, full_frame, repeated_fin: it could not wait. `fourwave explain "
            "delayed_ack` tells more.",
        ),
        Query(rate(metrics.FIN_ACK_FATES, "fate") + " > 0", "{{fate}}"),
        stacked=True,
    ),
    lines(
        About(
            "Closes due for TIME_WAIT",
            "cps",
            "entered: this host closed first and keeps the port for a minute. orphaned: it waits "
            "for the peer's FIN before. refused: there was no room, see Ports.",
        ),
        Query(rate(metrics.TIME_WAIT_ENTRIES, "how"), "{{how}}"),
        stacked=True,
    ),
)
RESETS: Final = (
    lines(
        About(
            "Resets sent, by cause",
            "cps",
            "unread_data: the application closed with bytes it "
            "had not read. linger_zero: it asked for it. data_after_close: the peer still sent. "
            "retransmit_timeout, keepalive, user_timeout: the peer is gone. out_of_memory: see "
            "net.ipv4.tcp_mem and tcp_max_orphans. `fourwave explain CAUSE` says what to do.",
        ),
        Query(rate(metrics.RESETS, "cause", direction="sent") + " > 0", "{{cause}}"),
        stacked=True,
    ),
    lines(
        About(
            "Resets received, by cause",
            "cps",
            "peer: an established connection was cut by the "
            "other side. no_listener: nobody listened where this host connected to. Look for "
            "the peers with `fourwave watch --kind reset`.",
        ),
        Query(rate(metrics.RESETS, "cause", direction="received") + " > 0", "{{cause}}"),
        stacked=True,
    ),
    lines(
        About(
            "Resets without a connection",
            "cps",
            "RSTs this host answers with where no connection is. no_socket: nobody listens at the "
            "port, or somebody scans. time_wait: the peer goes on after the close. handshake: an "
            "ACK of nothing, or a broken SYN. The summary of `fourwave watch` names the ports.",
        ),
        Query(rate(metrics.STRAY_RESETS, "cause"), "{{cause}}"),
        stacked=True,
    ),
    lines(
        About(
            "Closes that lost data",
            "cps",
            "Bytes that were sent and not acknowledged, not sent yet, or not read. "
            "`fourwave watch --json` has data_lost of each close, and who closed; "
            "`fourwave explain data_lost` tells more.",
        ),
        Query(rate(metrics.DATA_LOST_CLOSES, "kind"), "{{kind}}"),
        stacked=True,
    ),
)
DURATIONS: Final = (
    heat_map(
        About(
            "Teardown",
            "cps",
            "From the first FIN or RST to CLOSE. A band at 40 ms is the "
            "delayed ACK; bands at 200 ms and above are retransmissions or applications that "
            "answer late; 60 s is tcp_fin_timeout.",
        ),
        Query(rate(metrics.TEARDOWN, "le", "_bucket"), "{{le}}"),
    ),
    heat_map(
        About(
            "CLOSE_WAIT, of closed sockets",
            "cps",
            "How long the peer's FIN waited for the "
            "application here. Everything above a second is an application that does not notice "
            "the end of a stream, or has other work first.",
        ),
        Query(rate(metrics.CLOSE_WAIT, "le", "_bucket"), "{{le}}"),
    ),
    lines(
        About(
            "Teardown, quantiles",
            "s",
            "Estimated from the buckets. Compare hosts before looking for a cause here.",
            empty="None closed",
        ),
        *(Query(quantile(q, metrics.TEARDOWN), f"{q:.0%}") for q in (0.5, 0.9, 0.99)),
    ),
    lines(
        About(
            "Sockets by state",
            "short",
            "At the last census, of all network namespaces. "
            "close_wait that grows is a leak; time_wait is normal up to the limit "
            "net.ipv4.tcp_max_tw_buckets; last_ack and fin_wait1 that stay are peers that "
            "are gone.",
            empty="No census",
        ),
        Query(summed(metrics.SOCKETS, "state", state=STATES), "{{state}}"),
    ),
)
ROWS: Final = (
    ("At a glance", GLANCE),
    ("How connections end", CLOSES),
    ("Resets", RESETS),
    ("How long it takes", DURATIONS),
)
