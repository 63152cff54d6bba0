# SPDX-License-Identifier: Apache-2.0
"""All families of metrics from what was counted: the only place that knows which is which."""

from __future__ import annotations

import platform
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

from tracer import __version__, metrics
from tracer.kernel import hooks
from tracer.metrics_closes import UNTOLD
from tracer.metrics_declaration import label_of
from tracer.samples import Buckets, Samples, harmless
from tracer.serve_findings import Present
from tracer.tally import Durations, Tally
from tracer.tcp import FinAck, Labelled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tracer.aggregator import Snapshot
    from tracer.samples import Labels
    from tracer.tcp import HostFacts

Member = TypeVar("Member", bound=Labelled)


class Composer:
    """Makes Samples of one run.

    `tally` counts what the Aggregator does not, `present` is the last census.
    """

    def __init__(
        self,
        manifest: Mapping[str, Any],
        host: HostFacts,
        created_s: float,
        census: tuple[str, str] = ("none", "not asked for"),
    ) -> None:
        """Take what stays the same; `created_s`: when counting began, in seconds since 1970.

        `census`: how censuses are taken, and why not better.
        """
        self.tally = Tally(accepts_seen=hooks.in_force(manifest, hooks.ACCEPTED))
        self.present = Present()
        self._created_s = created_s
        self._hooks = dict.fromkeys(
            (*_hooks(manifest, host), ("census", *map(harmless, census))), 1.0
        )
        build = (__version__, host.kernel_release, str(manifest["bcc_version"]))
        self._build = {(*map(harmless, build), platform.python_version()): 1.0}
        self._page = {"host": harmless(platform.node())}

    def samples(self, snapshot: Snapshot, totals: Mapping[str, Any]) -> Samples:
        """Return the values of all families; `totals` is what the kernel side says of itself."""
        made = Samples(self._created_s, page=self._page)
        self._put_closes(made, snapshot)
        self._put_tracer(made, snapshot, totals)
        self.present.put(made)
        return made

    def _put_closes(self, made: Samples, snapshot: Snapshot) -> None:
        closes: dict[Labels, float] = {
            (label_of(kind), label_of(shake)): float(count)
            for (kind, shake), count in snapshot.closes.items()
        }
        made.put(metrics.CLOSES, closes)
        made.put(metrics.FIN_ACKS, _by_label(snapshot.fin_acks, but=FinAck.NONE))
        made.put(metrics.FIN_ACK_FATES, _by_label(snapshot.ack_fates))
        made.put(metrics.TIME_WAIT_ENTRIES, _by_label(snapshot.time_wait))
        lost = {kind: n for (kind, lost), n in snapshot.data_lost.items() if lost}
        made.put(metrics.DATA_LOST_CLOSES, _by_label(lost))
        if snapshot.time_wait_changes is None:
            made.put_one(metrics.TIME_WAIT_CHANGES, None)
        else:
            made.put(metrics.TIME_WAIT_CHANGES, _by_label(snapshot.time_wait_changes))
        made.put(metrics.STRAY_RESETS, _strays(snapshot))
        made.put(metrics.RESETS, {labels: float(n) for labels, n in self.tally.resets().items()})
        made.put_one(metrics.LOCAL_PORTS_EXHAUSTED, self.tally.without_port)
        made.histograms[metrics.TEARDOWN.name] = _buckets(self.tally.teardown)
        made.histograms[metrics.ACCEPT_WAIT.name] = _buckets(self.tally.accept_wait)
        made.histograms[metrics.CLOSE_WAIT.name] = _buckets(self.tally.close_wait)

    def _put_tracer(self, made: Samples, snapshot: Snapshot, totals: Mapping[str, Any]) -> None:
        made.put(metrics.LOST_RECORDS, {(where,): float(n) for where, n in snapshot.lost.items()})
        made.put_one(metrics.CLOSES_SEEN, totals["closes"])
        made.put_one(metrics.MISSED_EVENTS, totals["missed"])
        made.put(metrics.LOST_RESET_REPORTS, _lost_reports(snapshot))
        made.put(metrics.PROGRAM_RUN_SECONDS, _program_figures(totals, "run_time_ns", 1e-9))
        made.put(metrics.PROGRAM_RUNS, _program_figures(totals, "run_cnt", 1))
        made.put(metrics.HOOK, self._hooks)
        made.put(metrics.BUILD, self._build)


def _by_label(counts: Mapping[Member, int], but: Member | None = None) -> dict[Labels, float]:
    return {(label_of(one),): float(n) for one, n in counts.items() if one is not but}


def _lost_reports(snapshot: Snapshot) -> dict[Labels, float]:
    return {
        ("ring_full",): float(snapshot.kernel.get("resets_lost", 0)),
        ("no_close",): float(snapshot.resets_unmatched),
    }


def _strays(snapshot: Snapshot) -> dict[Labels, float]:
    counts: Counter[str] = Counter({UNTOLD: snapshot.kernel.get("strays_lost", 0)})
    for stray in snapshot.strays:
        counts[stray.cause.name.lower()] += stray.resets
    return {(cause,): float(n) for cause, n in counts.items()}


def _buckets(durations: Durations) -> Buckets:
    return Buckets(tuple(durations.counts), durations.sum_ns * 1e-9)


def _program_figures(totals: Mapping[str, Any], name: str, scale: float) -> dict[Labels, float]:
    figures: dict[str, dict[str, int]] = totals["programs"]
    return {(program,): scale * known.get(name, 0) for program, known in figures.items()}


def _hooks(manifest: Mapping[str, Any], host: HostFacts) -> Iterator[Labels]:
    mechanism = str(manifest["mechanism"])
    yield "state_changes", mechanism, ""
    yield "resets", mechanism, ""
    for hook in manifest["hooks"]:
        yield str(hook["hook"]), harmless(str(hook["mechanism"])), harmless(str(hook["reason"]))
    for program, told in (("error_report", "socket_errors"), ("signal", "sigpipe")):
        reason = manifest["left_out"].get(program, "")
        yield told, "none" if reason else mechanism, harmless(reason)
    if host.rst_reasons:
        yield "reset_reason", "kernel", ""
    else:
        yield "reset_reason", "none", "this kernel names none; causes come from the socket"
