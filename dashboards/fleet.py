# SPDX-License-Identifier: Apache-2.0
"""Many hosts at once, from recorded series: which job, and then which host, to look at."""

from __future__ import annotations

from typing import Final

from dashboards.panels import ORANGE, RED, YELLOW, About, Query, lines, number, rows

JOB: Final = '{job=~"$job"}'
HOSTS_BEHIND: Final = "Open the dashboard Overview for the host."

NOW: Final = (
    number(
        About(
            "Hosts",
            "short",
            "That report closes. Fewer than you have: see the alert FourwaveDown.",
            empty="No hosts",
            width=6,
        ),
        Query(f"sum(job:fourwave_hosts:count{JOB})"),
    ),
    number(
        About(
            "Hosts with forgotten sockets",
            "short",
            "Listed below. Begin with the one that has most.",
            limits=((1, YELLOW),),
            empty="No hosts",
            width=6,
        ),
        Query(f"sum(job:fourwave_hosts_with_suspects:count{JOB})"),
    ),
    number(
        About(
            "Local ports taken at the tightest",
            "percentunit",
            "Towards any destination, of any host.",
            limits=((0.8, YELLOW), (0.95, RED)),
            empty="No outbound connections",
            width=6,
        ),
        Query(f"max(job:fourwave_local_ports_taken:max_ratio{JOB})"),
    ),
    number(
        About(
            "Closes lost",
            "percentunit",
            "Of all that were seen, in the worst job.",
            limits=((1e-6, YELLOW), (0.001, RED)),
            empty="None closed",
            width=6,
        ),
        Query(f"max(job:fourwave_lost_records:ratio_rate5m{JOB})"),
    ),
)
COURSE: Final = (
    lines(
        About(
            "Closes by kind",
            "cps",
            "Of all hosts. active pays with TIME_WAIT, passive does not; the rest is "
            "no orderly end.",
        ),
        Query(f"sum by (kind) (job_kind:fourwave_closes:rate5m{JOB})", "{{kind}}"),
        stacked=True,
    ),
    lines(
        About(
            "Three-way share by job",
            "percentunit",
            "Of graceful closes. A step in one job is "
            "a deployment; in all of them, a kernel or the network.",
            empty="None closed",
            top=1,
        ),
        Query(f"job:fourwave_closes_three_way:ratio_rate5m{JOB}", "{{job}}"),
    ),
    lines(
        About(
            "Resets by cause",
            "cps",
            "Sent and received. A cause that rises on all hosts at "
            "once lies between them or in what they share.",
        ),
        Query(
            f"sum by (direction, cause) (job_direction_cause:fourwave_resets:rate5m{JOB}) > 0",
            "{{direction}} {{cause}}",
        ),
        stacked=True,
    ),
    lines(
        About(
            "Teardown and CLOSE_WAIT, 99 %",
            "s",
            "By job: how long the slowest hundredth takes.",
            empty="None closed",
        ),
        Query(f"job:fourwave_teardown_seconds:p99_5m{JOB}", "{{job}} teardown"),
        Query(f"job:fourwave_close_wait_seconds:p99_5m{JOB}", "{{job}} CLOSE_WAIT"),
    ),
    lines(
        About("Sockets by state", "short", "Of all hosts, listeners left out.", empty="No census"),
        Query(
            'sum by (state) (job_state:fourwave_sockets:sum{job=~"$job",state!="listen"})',
            "{{state}}",
        ),
    ),
    lines(
        About(
            "Connections dropped by listeners",
            "cps",
            "By job. The dashboard Listeners of a host says which.",
            empty="No listeners",
        ),
        Query(f"job:fourwave_accept_queue_overflows:rate5m{JOB}", "{{job}}"),
    ),
    lines(
        About(
            "Forgotten sockets by job",
            "short",
            "In CLOSE_WAIT. A line that only grows is a leak that came with a release of that job.",
            empty="No census",
        ),
        Query(f"job:fourwave_close_wait_suspects:sum{JOB}", "{{job}}"),
    ),
    lines(
        About(
            "Local ports taken by job",
            "percentunit",
            "Of the tightest destination of any host. The table below says which host.",
            limits=((0.8, YELLOW), (0.95, RED)),
            empty="No outbound connections",
            top=1,
        ),
        Query(f"job:fourwave_local_ports_taken:max_ratio{JOB}", "{{job}}"),
    ),
)
WORST: Final = (
    rows(
        About("Most forgotten sockets", "short", HOSTS_BEHIND, empty="None forgotten", width=12),
        Query(f"topk(20, instance:fourwave_close_wait_suspects:sum{JOB} > 0)", "Forgotten"),
    ),
    rows(
        About(
            "Fewest local ports",
            "percentunit",
            HOSTS_BEHIND,
            empty="No outbound connections",
            limits=((0.8, ORANGE),),
            width=12,
        ),
        Query(f"topk(20, instance:fourwave_local_ports_taken:max_ratio{JOB})", "Taken"),
    ),
    rows(
        About("Most resets", "cps", HOSTS_BEHIND, empty="No resets", width=12),
        Query(
            f"topk(20, sum by (job, instance) "
            f"(instance_direction_cause:fourwave_resets:rate5m{JOB}) > 0)",
            "Resets",
        ),
    ),
    rows(
        About("Most connections dropped", "cps", HOSTS_BEHIND, empty="None dropped", width=12),
        Query(f"topk(20, instance:fourwave_accept_queue_overflows:rate5m{JOB} > 0)", "Dropped"),
    ),
)
ROWS: Final = (("Now", NOW), ("How it goes", COURSE), ("Hosts to look at", WORST))
