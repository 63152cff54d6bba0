# SPDX-License-Identifier: Apache-2.0
"""Every metric there is, declared once.

The exporter, docs/metrics.md, the dashboards and the rules are made from this table. Names,
labels and types are the contract; base units; no label names a process id, and none can take
more than `cap` values at once.
"""

from __future__ import annotations

from typing import Final

from tracer.metrics_closes import (
    ACCEPT_WAIT,
    CLOSE_WAIT,
    CLOSES,
    DATA_LOST_CLOSES,
    FIN_ACK_FATES,
    FIN_ACKS,
    RESETS,
    STRAY_RESETS,
    TEARDOWN,
    TIME_WAIT_CHANGES,
    TIME_WAIT_ENTRIES,
)
from tracer.metrics_declaration import Fold, Group, Metric, Type
from tracer.tcp import TcpState

# Those of metrics_closes.py, which are to be had here like all others.
__all__ = (
    "ACCEPT_WAIT",
    "CLOSES",
    "CLOSE_WAIT",
    "DATA_LOST_CLOSES",
    "FIN_ACKS",
    "FIN_ACK_FATES",
    "RESETS",
    "STRAY_RESETS",
    "TEARDOWN",
    "TIME_WAIT_CHANGES",
    "TIME_WAIT_ENTRIES",
)

DETECTORS: Final = (
    "closes",
    "census",
    "close_wait_leak",
    "time_wait",
    "local_ports",
    "listen_overflow",
)
"""What can fail alone; the first two feed the others."""


SOCKETS: Final = Metric(
    "fourwave_sockets",
    Type.GAUGE,
    Group.LEAKS,
    "Sockets at the last census, by state.",
    ("state",),
    tuple((state.label,) for state in TcpState if state is not TcpState.CLOSE),
)
CLOSE_WAIT_SUSPECTS: Final = Metric(
    "fourwave_close_wait_suspects",
    Type.GAUGE,
    Group.LEAKS,
    "Sockets in CLOSE_WAIT that look forgotten, by unit and name of the process that holds them.",
    ("unit", "comm"),
    cap=50,
)
CLOSE_WAIT_OLDEST: Final = Metric(
    "fourwave_close_wait_oldest_seconds",
    Type.GAUGE,
    Group.LEAKS,
    "How long the oldest socket in CLOSE_WAIT has heard nothing, by unit and name of its process.",
    ("unit", "comm"),
    cap=50,
    fold=Fold.MAX,
)
TIME_WAIT_SOCKETS: Final = Metric(
    "fourwave_time_wait_sockets",
    Type.GAUGE,
    Group.PORTS,
    "Sockets in TIME_WAIT towards a destination.",
    ("raddr", "rport"),
    cap=20,
)
TIME_WAIT_USED: Final = Metric(
    "fourwave_time_wait_used",
    Type.GAUGE,
    Group.PORTS,
    "TIME_WAITs, and FIN_WAIT2s of orphans, in the network namespace that is nearest to its limit.",
)
TIME_WAIT_LIMIT: Final = Metric(
    "fourwave_time_wait_limit",
    Type.GAUGE,
    Group.PORTS,
    "How many that namespace may have: its net.ipv4.tcp_max_tw_buckets.",
)
TIME_WAIT_OVERFLOWS: Final = Metric(
    "fourwave_time_wait_overflows_total",
    Type.COUNTER,
    Group.PORTS,
    "Connections that ended without TIME_WAIT for want of room, of all network namespaces, "
    "gained between two censuses (TCPTimeWaitOverflow).",
)
LOCAL_PORTS_USED: Final = Metric(
    "fourwave_local_ports_used",
    Type.GAUGE,
    Group.PORTS,
    "Local ports taken towards a destination, TIME_WAIT included.",
    ("raddr", "rport"),
    cap=20,
)
LOCAL_PORTS_AVAILABLE: Final = Metric(
    "fourwave_local_ports_available",
    Type.GAUGE,
    Group.PORTS,
    "Local ports still free towards a destination; of the rest together, the least.",
    ("raddr", "rport"),
    cap=20,
    fold=Fold.MIN,
)
LOCAL_PORTS_EXHAUSTED: Final = Metric(
    "fourwave_local_ports_exhausted_total",
    Type.COUNTER,
    Group.PORTS,
    "connect() calls that found no free local port (EADDRNOTAVAIL).",
    series=((),),
)
ACCEPT_QUEUE_LENGTH: Final = Metric(
    "fourwave_accept_queue_length",
    Type.GAUGE,
    Group.LISTENERS,
    "Connections that wait for accept().",
    ("laddr", "lport"),
    cap=50,
    fold=Fold.MAX,
)
ACCEPT_QUEUE_LIMIT: Final = Metric(
    "fourwave_accept_queue_limit",
    Type.GAUGE,
    Group.LISTENERS,
    "How many may wait: the smaller of listen()'s backlog and net.core.somaxconn.",
    ("laddr", "lport"),
    cap=50,
    fold=Fold.MIN,
)
ACCEPT_QUEUE_OVERFLOWS: Final = Metric(
    "fourwave_accept_queue_overflows_total",
    Type.COUNTER,
    Group.LISTENERS,
    "Connections that listeners dropped since they are watched, as their sockets count them.",
    ("laddr", "lport"),
    cap=50,
)
LOST_RECORDS: Final = Metric(
    "fourwave_lost_records_total",
    Type.COUNTER,
    Group.TRACER,
    "Closes that are known to be missing from all other metrics, by where they were lost.",
    ("where",),
    tuple((where,) for where in ("ring_full", "conn_map_full", "unseen", "decode")),
)
CLOSES_SEEN: Final = Metric(
    "fourwave_closes_seen_total",
    Type.COUNTER,
    Group.TRACER,
    "Closes by the kernel side's own count: those that became records and those it lost.",
    series=((),),
)
MISSED_EVENTS: Final = Metric(
    "fourwave_missed_events_total",
    Type.COUNTER,
    Group.TRACER,
    "Changes of state for which the kernel ran none of our programs; their closes say unknown.",
    series=((),),
)
LOST_RESET_REPORTS: Final = Metric(
    "fourwave_lost_reset_reports_total",
    Type.COUNTER,
    Group.TRACER,
    "Reports of a RST of ours that amended no close, by why; that close may tell less.",
    ("why",),
    (("ring_full",), ("no_close",)),
)
PROGRAM_RUN_SECONDS: Final = Metric(
    "fourwave_program_run_seconds_total",
    Type.COUNTER,
    Group.TRACER,
    "Time spent in a BPF program; only grows while the sysctl kernel.bpf_stats_enabled is 1.",
    ("program",),
)
PROGRAM_RUNS: Final = Metric(
    "fourwave_program_runs_total",
    Type.COUNTER,
    Group.TRACER,
    "Runs of a BPF program; only grows while the sysctl kernel.bpf_stats_enabled is 1.",
    ("program",),
)
HOOK: Final = Metric(
    "fourwave_hook_info",
    Type.INFO,
    Group.TRACER,
    "What each kind of evidence rests on, and why nothing better is used.",
    ("hook", "mechanism", "reason"),
)
DETECTOR_UP: Final = Metric(
    "fourwave_detector_up",
    Type.GAUGE,
    Group.TRACER,
    "Whether a detector's last run succeeded.",
    ("detector",),
    tuple((name,) for name in DETECTORS),
)
CENSUS_SECONDS: Final = Metric(
    "fourwave_census_seconds",
    Type.GAUGE,
    Group.TRACER,
    "How long the last census took; absent when there was none.",
)
CENSUS_TIMESTAMP: Final = Metric(
    "fourwave_census_timestamp_seconds",
    Type.GAUGE,
    Group.TRACER,
    "When the last census began, in seconds since 1970; absent when there was none.",
)
SERIES_DROPPED: Final = Metric(
    "fourwave_series_dropped_total",
    Type.COUNTER,
    Group.TRACER,
    "Series that a cap folded into other, counted at every census.",
    ("metric",),
)
BUILD: Final = Metric(
    "fourwave_build_info",
    Type.INFO,
    Group.TRACER,
    "Version of fourwave, of the kernel it runs on, and of what compiled its programs.",
    ("version", "kernel", "bcc", "python"),
)

METRICS: Final = (
    CLOSES,
    FIN_ACKS,
    FIN_ACK_FATES,
    TIME_WAIT_ENTRIES,
    TIME_WAIT_CHANGES,
    RESETS,
    STRAY_RESETS,
    DATA_LOST_CLOSES,
    TEARDOWN,
    ACCEPT_WAIT,
    CLOSE_WAIT,
    SOCKETS,
    CLOSE_WAIT_SUSPECTS,
    CLOSE_WAIT_OLDEST,
    TIME_WAIT_SOCKETS,
    TIME_WAIT_USED,
    TIME_WAIT_LIMIT,
    TIME_WAIT_OVERFLOWS,
    LOCAL_PORTS_USED,
    LOCAL_PORTS_AVAILABLE,
    LOCAL_PORTS_EXHAUSTED,
    ACCEPT_QUEUE_LENGTH,
    ACCEPT_QUEUE_LIMIT,
    ACCEPT_QUEUE_OVERFLOWS,
    LOST_RECORDS,
    CLOSES_SEEN,
    MISSED_EVENTS,
    LOST_RESET_REPORTS,
    PROGRAM_RUN_SECONDS,
    PROGRAM_RUNS,
    HOOK,
    DETECTOR_UP,
    CENSUS_SECONDS,
    CENSUS_TIMESTAMP,
    SERIES_DROPPED,
    BUILD,
)
FROM_CENSUS: Final = tuple(
    metric
    for metric in METRICS
    if metric.group in {Group.LEAKS, Group.PORTS, Group.LISTENERS}
    and metric not in {CLOSE_WAIT, LOCAL_PORTS_EXHAUSTED}
)
"""What is not known without a census."""
CAPPED: Final = tuple(metric for metric in METRICS if metric.cap is not None)
