# SPDX-License-Identifier: Apache-2.0
"""Whether the other dashboards can be believed: the tracer itself."""

from __future__ import annotations

from typing import Final

from dashboards.panels import ORANGE, RED, YELLOW, About, Query, lines, number, rows, switches
from dashboards.promql import SCOPE, gained, rate, ratio, selector
from tracer import metrics

CENSUS_AT: Final = selector(metrics.CENSUS_TIMESTAMP)
RUN_SECONDS: Final = rate(metrics.PROGRAM_RUN_SECONDS, "program")

NOW: Final = (
    number(
        About(
            "Tracers up",
            "percentunit",
            "Of the targets that Prometheus knows. Below 100 %: "
            "`systemctl status fourwave` and `fourwave doctor` on the host.",
            empty="No targets",
            width=6,
        ),
        Query(f"avg(up{{{SCOPE}}})"),
    ),
    number(
        About(
            "Closes lost",
            "percentunit",
            "Of those the kernel side counted, in the time shown. "
            "Everything else is too low by as much.",
            limits=((1e-6, YELLOW), (0.001, RED)),
            empty="None closed",
            width=6,
        ),
        Query(ratio(gained(metrics.LOST_RECORDS), gained(metrics.CLOSES_SEEN))),
    ),
    number(
        About(
            "Detectors down",
            "short",
            "On any host. The log of the service says which and why.",
            limits=((1, RED),),
            empty="No tracer",
            width=6,
        ),
        Query(f"sum(1 - {selector(metrics.DETECTOR_UP)})"),
    ),
    number(
        About(
            "Oldest census",
            "s",
            "How old what is shown of leaks, ports and listeners may be. "
            "It is normally below twice --census (30 s) and the scrape interval together.",
            limits=((120, YELLOW), (600, RED)),
            empty="No census",
            width=6,
        ),
        Query(f"max(timestamp({CENSUS_AT}) - {CENSUS_AT})"),
    ),
)
LOSS: Final = (
    lines(
        About(
            "Closes lost, by where",
            "cps",
            "ring_full: give --ring-bytes more. conn_map_full: "
            "more connections than the tracer follows. unseen: sockets that are gone and whose "
            "end was not seen. decode: a defect, please report it.",
        ),
        Query(rate(metrics.LOST_RECORDS, "where"), "{{where}}"),
    ),
    lines(
        About(
            "Closes seen and closes counted",
            "cps",
            "By the kernel side, and by everything else. They differ by what was lost.",
        ),
        Query(rate(metrics.CLOSES_SEEN), "seen"),
        Query(rate(metrics.CLOSES), "counted"),
    ),
    lines(
        About(
            "Events missed",
            "cps",
            "Changes of state for which the kernel ran no program of "
            "ours, mostly because one was running on that processor. Their closes say unknown. "
            "And reports of a RST of ours that amended no close.",
        ),
        Query(rate(metrics.MISSED_EVENTS, "instance"), "{{instance}}"),
        Query(rate(metrics.LOST_RESET_REPORTS, "why"), "RST: {{why}}"),
    ),
    switches(
        About(
            "Detectors",
            "short",
            "closes feeds everything, census the other four. A detector "
            "that is down leaves its metrics away; the rest goes on.",
            empty="No tracer",
        ),
        Query(selector(metrics.DETECTOR_UP), "{{instance}} {{detector}}"),
    ),
)
COST: Final = (
    lines(
        About(
            "Processor time in BPF",
            "percentunit",
            "Of one core, by program. 0 unless the "
            "sysctl kernel.bpf_stats_enabled is 1, which costs a little itself.",
            top=None,
        ),
        Query(RUN_SECONDS, "{{program}}"),
    ),
    lines(
        About(
            "Time of one run",
            "s",
            "Of a program, on average. Needs the same sysctl.",
            empty="kernel.bpf_stats_enabled is 0",
        ),
        Query(ratio(RUN_SECONDS, rate(metrics.PROGRAM_RUNS, "program")), "{{program}}"),
    ),
    lines(
        About(
            "Duration of a census",
            "s",
            "It grows with the number of sockets, and with the "
            "number of processes whose descriptors are read.",
            empty="No census",
        ),
        Query(selector(metrics.CENSUS_SECONDS), "{{instance}}"),
    ),
    lines(
        About(
            "Duration of a scrape",
            "s",
            "As Prometheus sees it. Scrapes never wait for a "
            "census: a slow one is a busy host or network.",
            limits=((1, ORANGE),),
            empty="No targets",
        ),
        Query(f"scrape_duration_seconds{{{SCOPE}}}", "{{instance}}"),
    ),
    lines(
        About(
            "Series folded into other",
            "short",
            "At every census, by metric: what the caps "
            "keep out of Prometheus. The commands `fourwave leaks`, `ports` and `listeners` "
            "show them all.",
        ),
        Query(rate(metrics.SERIES_DROPPED, "metric") + " > 0", "{{metric}}"),
    ),
    lines(
        About(
            "Series of a scrape",
            "short",
            "Bounded by the caps, whatever the host does.",
            empty="No targets",
        ),
        Query(f"scrape_samples_scraped{{{SCOPE}}}", "{{instance}}"),
    ),
)
WHAT: Final = (
    rows(
        About(
            "What evidence rests on",
            "short",
            "The mechanism in use for each kind of evidence, "
            "and why nothing better is. `fourwave doctor` says how to get it.",
            empty="No tracer",
            width=12,
        ),
        Query(f"count by (hook, mechanism, reason) ({selector(metrics.HOOK)})", "Hosts"),
    ),
    rows(
        About("Versions", "short", "Hosts by what they run.", empty="No tracer", width=12),
        Query(f"count by (version, kernel, bcc, python) ({selector(metrics.BUILD)})", "Hosts"),
    ),
)
ROWS: Final = (
    ("Now", NOW),
    ("Loss", LOSS),
    ("Cost", COST),
    ("What runs where", WHAT),
)
