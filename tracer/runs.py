# SPDX-License-Identifier: Apache-2.0
"""Put the parts together for each command: source, session, view, recorder, summary.

Nothing heavy is imported at the top: the loader child of a live run starts first,
and numpy comes in while it compiles.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tracer.errors import RecordingError
from tracer.outputs.text import plural

if TYPE_CHECKING:
    from tracer.aggregator import Snapshot
    from tracer.kernel.source import KernelSource
    from tracer.recording import RecordingSource, RecordingWriter
    from tracer.session import Limits, Session, View
    from tracer.session_live import Live
    from tracer.tcp import HostFacts


LAST_LINES: Final = 1_000
"""Closes that are still shown when a run on a terminal ends; half a second of work."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asked for, as plain values."""

    filters: dict[str, Any] = field(default_factory=dict)
    count: int | None = None
    duration_s: float | None = None
    wide: bool = False
    as_json: bool = False
    summary_only: bool = False
    color: bool = False


def watch(wishes: Wishes) -> None:
    """Show the closes of this host until told to stop. Raises HostError."""
    with attach() as source:
        view = _view(wishes)
        live = _live(source, wishes, keep=view is not None)
        run = _session(source.host, wishes, view, live=live)
        _follow(live, run, f"ready: tracing every TCP close on this host ({_in_force(source)})")
    summarize(run.finish(), as_json=wishes.as_json)


def record(path: str, wishes: Wishes, *, force: bool) -> None:
    """Write the raw batches of this host into a file until told to stop."""
    with attach() as source, _writer(path, source, force=force) as writer:
        live = _live(source, wishes, keep=False)
        run = _session(source.host, wishes, None, live=live, to=writer)
        _follow(live, run, f"ready: recording every TCP close on this host ({_in_force(source)})")
        snapshot = run.finish()
    tell(summary_text(snapshot))
    if path != "-":
        tell(f"{path}: {plural(writer.size_bytes, 'byte')}; show it with: fourwave replay {path}")


def replay(path: str, wishes: Wishes) -> None:
    """Show a recording as watch would have. Raises RecordingError, also after what was whole."""
    from tracer import session, session_live  # noqa: PLC0415 - numpy
    from tracer.recording import RecordingSource  # noqa: PLC0415

    with RecordingSource(path) as source, session_live.Stop() as stop:
        run = _session(host_facts(source), wishes, _view(wishes))
        session.run(source, run, stop)
        summarize(run.finish(), as_json=wishes.as_json)
        if source.damage is not None:
            raise RecordingError(f"{path} is damaged {source.damage}; all before that was read")


def doctor(*, as_json: bool, color: bool) -> int:
    """Print what this host allows; return the exit code."""
    from tracer.errors import HostError  # noqa: PLC0415
    from tracer.kernel.support import probe  # noqa: PLC0415
    from tracer.outputs import doctor as form  # noqa: PLC0415

    facts = probe()
    sys.stdout.write(form.as_json(facts) if as_json else form.as_text(facts, color=color))
    sys.stdout.flush()
    return 0 if form.able(facts) else HostError.exit_code


def attach() -> KernelSource:
    """Return this host as a source; numpy and the session are imported meanwhile."""
    from tracer.kernel.source import KernelSource  # noqa: PLC0415

    loader = KernelSource.load()
    from tracer import session  # noqa: F401, PLC0415

    return KernelSource(loader)


def tell(text: str) -> None:
    """Write a line for the user to stderr, at once."""
    with contextlib.suppress(OSError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def host_facts(source: RecordingSource) -> HostFacts:
    """Return what the recording says of the host it was made on. Raises RecordingError."""
    from tracer.tcp import HostFacts  # noqa: PLC0415
    from tracer.wire import CLOSE_DTYPE, WIRE_VERSION  # noqa: PLC0415

    wire = source.header.get("wire_version"), source.header.get("record_bytes")
    if wire != (WIRE_VERSION, CLOSE_DTYPE.itemsize):
        raise RecordingError(
            f"{source.path} holds records of wire version {wire[0]} ({wire[1]} bytes each), this "
            f"fourwave reads version {WIRE_VERSION} ({CLOSE_DTYPE.itemsize} bytes); "
            "replay it with the version that made it"
        )
    try:
        reasons = {int(number): str(name) for number, name in source.header["rst_reasons"].items()}
        return HostFacts(
            hz=_positive(source.header["hz"]),
            rst_reasons=reasons,
            page_size=_positive(source.header["page_size"]),
            kernel_release=str(source.header["kernel_release"]),
            machine=str(source.header["machine"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"{source.path} is damaged: its header lacks what is needed ({error})"
        raise RecordingError(message) from error


def _positive(number: Any) -> int:
    if not isinstance(number, int) or number < 1:
        raise ValueError(f"{number!r} where a count was expected")
    return number


def recording_header(host: HostFacts) -> dict[str, Any]:
    """Return the context of a recording: what its records mean, nothing that names the host."""
    from tracer.wire import CLOSE_DTYPE, WIRE_VERSION  # noqa: PLC0415

    return {
        "wire_version": WIRE_VERSION,
        "record_bytes": CLOSE_DTYPE.itemsize,
        "hz": host.hz,
        "page_size": host.page_size,
        "kernel_release": host.kernel_release,
        "machine": host.machine,
        "rst_reasons": {str(number): name for number, name in host.rst_reasons.items()},
    }


def summary_text(snapshot: Snapshot) -> str:
    """Return the summary as text."""
    from tracer.outputs import summary  # noqa: PLC0415

    return summary.as_text(snapshot)


def summarize(snapshot: Snapshot, *, as_json: bool) -> None:
    """Print the summary; with --json, stdout is for machines alone."""
    if as_json:
        tell(summary_text(snapshot))
        return
    sys.stdout.write(summary_text(snapshot))
    sys.stdout.flush()


# In a few words what the evidence rests on, what is missing included.
def _in_force(source: KernelSource) -> str:
    words = [str(source.manifest["mechanism"]), _evidence(source.manifest["hooks"])]
    if not source.host.rst_reasons:
        words.append("no reset reasons on this kernel")
    words += [_LEFT_OUT[program] for program in source.manifest["left_out"]]
    return ", ".join(words)


def _evidence(hooks: list[dict[str, Any]]) -> str:
    seen = sorted({hook["mechanism"] for hook in hooks if hook["functions"]})
    words = " and ".join(["evidence by counters", *seen])
    unseen = [_HOOKED[hook["hook"]] for hook in hooks if not hook["functions"]]
    return f"{words}, no hook for {' or '.join(unseen)}" if unseen else words


# By the program the kernel refuses or lacks something for.
_LEFT_OUT: Final = {
    "error_report": "no errors from before the end",
    "signal": "no SIGPIPE by connection",
}


# What a hook would tell the time or the course of.
_HOOKED: Final = {"ack_sent": "ACKs", "accepted": "accept()", "time_wait": "TIME_WAIT"}


def _live(source: KernelSource, wishes: Wishes, *, keep: bool) -> Live:
    from tracer.session_live import COUNTING, Live, Pace  # noqa: PLC0415

    return Live(source, _limits(wishes), Pace() if keep else COUNTING, keep=keep)


# From the ready line on until the end, whoever asks for it.
def _follow(live: Live, run: Session, ready: str) -> None:
    from tracer import session, session_live  # noqa: PLC0415

    with session_live.Stop() as stop:
        tell(ready)
        with contextlib.closing(live.batches(stop)) as batches:
            session.run(batches, run, stop)
        _end_soon(live, run)
        for batch in live.rest():
            run.feed(batch)


# Whoever ends a flood on a terminal wants the summary, not what is left of the flood.
def _end_soon(live: Live, run: Session) -> None:
    from tracer.wire import RING_RECORD_DTYPE  # noqa: PLC0415 - numpy

    behind = live.behind_bytes // RING_RECORD_DTYPE.itemsize
    if behind > LAST_LINES and sys.stdout.isatty():
        tell(f"({behind:,} closes waited to be shown: they are only counted)")
        run.only_count()


def _writer(path: str, source: KernelSource, *, force: bool) -> RecordingWriter:
    from tracer.recording import RecordingWriter  # noqa: PLC0415

    return RecordingWriter(path, recording_header(source.host), force=force)


def _session(
    host: HostFacts,
    wishes: Wishes,
    view: View | None,
    *,
    live: Live | None = None,
    to: RecordingWriter | None = None,
) -> Session:
    from tracer import filters, session  # noqa: PLC0415

    return session.Session(
        host,
        view=view,
        chosen=filters.Filter(**wishes.filters),
        limits=_limits(wishes),
        recorder=to,
        ask_names=live.source.cgroup_names if live else None,
        meanwhile=live.fetch if live else None,
        warn=tell if live else None,
    )


def _limits(wishes: Wishes) -> Limits:
    from tracer.session import Limits  # noqa: PLC0415

    return Limits(count=wishes.count, duration_s=wishes.duration_s)


def _view(wishes: Wishes) -> View | None:
    from tracer.outputs.jsonl import JsonView  # noqa: PLC0415
    from tracer.outputs.live import LiveView  # noqa: PLC0415

    if wishes.summary_only:
        return None
    if wishes.as_json:
        return JsonView(sys.stdout)
    return LiveView(sys.stdout, wide=wishes.wide, color=wishes.color)
