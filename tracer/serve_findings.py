# SPDX-License-Identifier: Apache-2.0
"""What detectors find in each census, as values of metrics; one that fails leaves the others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tracer import metrics
from tracer.detectors.close_wait_leak import CloseWaitLeak
from tracer.detectors.close_wait_verdict import Verdict
from tracer.detectors.listen_overflow import ListenOverflow
from tracer.detectors.local_ports import LocalPorts
from tracer.detectors.time_wait import TimeWait
from tracer.detectors.time_wait_room import TimeWaitWatch
from tracer.runs import tell
from tracer.samples import capped, harmless
from tracer.serve_totals import Totals
from tracer.tcp import TcpState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tracer.census import Census
    from tracer.detectors.close_wait_leak import CloseWaitFinding, CloseWaitReport
    from tracer.detectors.listen_overflow import ListenReport
    from tracer.detectors.local_ports import PortsFinding
    from tracer.detectors.time_wait import TimeWaitFinding, TimeWaitTotal
    from tracer.metrics_declaration import Metric
    from tracer.samples import Labels, Samples

SUSPECT: Final = (Verdict.LEAK, Verdict.AWAITS_GC, Verdict.UNSETTLED)
UNKNOWN: Final = "unknown"
OF: Final = {
    "census": (metrics.SOCKETS,),
    "close_wait_leak": (metrics.CLOSE_WAIT_SUSPECTS, metrics.CLOSE_WAIT_OLDEST),
    "local_ports": (metrics.LOCAL_PORTS_USED, metrics.LOCAL_PORTS_AVAILABLE),
    "time_wait": (
        metrics.TIME_WAIT_SOCKETS,
        metrics.TIME_WAIT_USED,
        metrics.TIME_WAIT_LIMIT,
        metrics.TIME_WAIT_OVERFLOWS,
    ),
    "listen_overflow": (
        metrics.ACCEPT_QUEUE_LENGTH,
        metrics.ACCEPT_QUEUE_LIMIT,
        metrics.ACCEPT_QUEUE_OVERFLOWS,
    ),
}
"""What is not known when a detector fails."""


@dataclass(frozen=True, slots=True)
class Present:
    """What the last census came to; without one, all detectors are down."""

    values: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)
    up: Mapping[Labels, float] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    took_s: float | None = None
    at_s: float | None = None

    def put(self, made: Samples) -> None:
        """Set all families that come from censuses."""
        for metric in metrics.FROM_CENSUS:
            made.series[metric.name] = dict(self.values.get(metric.name, {}))
        if not self.up:
            made.put(metrics.SOCKETS)  # all there from the start; detector_up says what they mean
        made.put(metrics.DETECTOR_UP, {("closes",): 1.0, **self.up})
        made.put_one(metrics.CENSUS_SECONDS, self.took_s)
        made.put_one(metrics.CENSUS_TIMESTAMP, self.at_s)
        dropped: dict[Labels, float] = {
            (m.name,): float(self.dropped.get(m.name, 0)) for m in metrics.CAPPED
        }
        made.put(metrics.SERIES_DROPPED, dropped)


class Findings:
    """All detectors, and what they said last. Used by one thread at a time."""

    def __init__(self) -> None:
        """Begin with no census."""
        self._leaks, self._ports = CloseWaitLeak(), LocalPorts()
        self._waits, self._room = TimeWait(), TimeWaitWatch()
        self._listeners, self._overflows = ListenOverflow(), Totals(metrics.ACCEPT_QUEUE_OVERFLOWS)
        self._values: dict[str, dict[Labels, float]] = {}
        self._up: dict[Labels, float] = {}
        self._told: set[str] = set()
        self._dropped: Counter[str] = Counter()

    def look(self, census: Census, at_s: float) -> Present:
        """Judge a census that began at `at_s`, in seconds since 1970."""
        self._try("census", lambda: self._look_states(census))
        self._try("close_wait_leak", lambda: self._look_leaks(self._leaks.look(census)))
        self._try("local_ports", lambda: self._look_ports(self._ports.look(census)))
        self._try("time_wait", lambda: self._look_waits(*self._waits.look(census)))
        self._try("listen_overflow", lambda: self._look_listeners(self._listeners.look(census)))
        return self._present(census.took_ns * 1e-9, at_s)

    def fail(self, error: Exception) -> Present:
        """Take note that there is no census: what it would tell is not known."""
        self._tell("census", error)
        self._values.clear()
        self._up = {(name,): 0.0 for name in OF}
        return self._present(None, None)

    def _present(self, took_s: float | None, at_s: float | None) -> Present:
        return Present(
            values=dict(self._values),
            up=dict(self._up),
            dropped=dict(self._dropped),
            took_s=took_s,
            at_s=at_s,
        )

    # The edge of the loop: whatever a detector stumbles over, the rest goes on.
    def _try(self, name: str, look: Callable[[], object]) -> None:
        try:
            look()
        except Exception as error:  # noqa: BLE001
            self._tell(name, error)
            self._up[name,] = 0.0
            for metric in OF[name]:
                self._values.pop(metric.name, None)
        else:
            self._up[name,] = 1.0

    def _tell(self, name: str, error: Exception) -> None:
        text = f"detector {name}: {type(error).__name__}: {error}"
        if text not in self._told and len(self._told) < 20:
            self._told.add(text)
            tell(text)

    def _set(self, metric: Metric, values: Iterable[tuple[Labels, float]]) -> None:
        self._put(metric, *capped(metric, values))

    def _put(self, metric: Metric, series: dict[Labels, float], dropped: int) -> None:
        self._values[metric.name] = series
        self._dropped[metric.name] += dropped

    def _set_one(self, metric: Metric, value: float | None) -> None:
        self._values[metric.name] = {} if value is None else {(): value}

    def _look_states(self, census: Census) -> None:
        counts: dict[Labels, float] = dict.fromkeys(metrics.SOCKETS.series, 0.0)
        states = census.states
        for substate in set(states["substate"].tolist()):
            rows = states["substate"] == substate
            label = TcpState(substate).label
            if (label,) in counts:
                counts[label,] += float(states["count"][rows].sum())
        self._values[metrics.SOCKETS.name] = counts

    def _look_leaks(self, report: CloseWaitReport) -> None:
        suspects = [one for one in report.findings if one.verdict in SUSPECT]
        by_size = sorted(suspects, key=lambda one: -one.evidence.count)
        self._set(metrics.CLOSE_WAIT_SUSPECTS, ((_who(f), f.evidence.count) for f in by_size))
        by_age = sorted(report.findings, key=lambda one: -one.evidence.oldest_ms)
        oldest = ((_who(one), one.evidence.oldest_ms / 1000) for one in by_age)
        self._set(metrics.CLOSE_WAIT_OLDEST, oldest)

    def _look_ports(self, findings: tuple[PortsFinding, ...]) -> None:
        known = [one for one in findings if one.available is not None]
        used = ((_towards(one), one.in_use + one.time_wait + one.fin_wait2) for one in findings)
        self._set(metrics.LOCAL_PORTS_USED, used)
        free = ((_towards(one), one.available or 0) for one in known)
        self._set(metrics.LOCAL_PORTS_AVAILABLE, free)

    def _look_waits(
        self, findings: tuple[TimeWaitFinding, ...], totals: tuple[TimeWaitTotal, ...]
    ) -> None:
        outbound = [one for one in findings if one.lport is None]
        counts = (((str(one.raddr), str(one.rport)), one.time_wait) for one in outbound)
        self._set(metrics.TIME_WAIT_SOCKETS, counts)
        room = self._room.look(totals)
        self._set_one(metrics.TIME_WAIT_USED, room.used)
        self._set_one(metrics.TIME_WAIT_LIMIT, room.limit)
        self._set_one(metrics.TIME_WAIT_OVERFLOWS, room.overflowed)

    def _look_listeners(self, report: ListenReport) -> None:
        rows = [((one.laddr, str(one.lport)), one.queue) for one in report.findings]
        self._set(metrics.ACCEPT_QUEUE_LENGTH, ((at, queue.accept_queue) for at, queue in rows))
        self._set(metrics.ACCEPT_QUEUE_LIMIT, ((at, queue.limit) for at, queue in rows))
        found = {one.cookie: (one.laddr, str(one.lport)) for one in report.findings}
        gains = [(at, report.grown.get(cookie, 0)) for cookie, at in found.items()]
        rest = sum(gain for cookie, gain in report.grown.items() if cookie not in found)
        self._put(metrics.ACCEPT_QUEUE_OVERFLOWS, *self._overflows.add(gains, rest))


def _who(finding: CloseWaitFinding) -> Labels:
    name = finding.holders[0].comm if finding.holders else UNKNOWN
    return harmless(finding.unit or UNKNOWN), harmless(name)


def _towards(finding: PortsFinding) -> Labels:
    return finding.raddr, str(finding.rport)
