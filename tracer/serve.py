# SPDX-License-Identifier: Apache-2.0
"""`fourwave serve`: trace, count, and hand samples to the web process, until told to stop.

Started with privilege, it gives all of it up before the first close is counted, but for what the
kernel proves to need. The web process has none and only listens: whatever befalls it, tracing
goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from tracer import memory, privileges, runs
from tracer.batch import BatchKind
from tracer.serve_census import CensusHelper
from tracer.serve_notify import notify
from tracer.serve_web import Web, listen

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import FrameType

    from tracer.batch import Batch
    from tracer.kernel.source import KernelSource
    from tracer.serve_samples import Composer
    from tracer.session import Session
    from tracer.session_live import Live

DEFAULT_LISTEN: Final = ("127.0.0.1", 9742)
TICK_S: Final = 0.1
PATIENCE_NS: Final = 950_000_000
SWEEP_EVERY_NS: Final = 20_000_000_000
IDLE_TICK_MAX_S: Final = 0.25
ASLEEP_S: Final = 1.0
ROOM_USED: Final = 0.5
"""Of a ring, by the worst burst that an idle host can make of itself before it is looked at."""
STILL_NS: Final = 5_000_000_000
"""Signs of life come no seldomer: the web process takes 15 s for silence, systemd 30."""


@dataclass(frozen=True, slots=True)
class ServeWishes:
    """What the command line asked for."""

    addresses: tuple[tuple[str, int], ...] = (DEFAULT_LISTEN,)
    web_config: str | None = None
    user: str | None = None
    ring_bytes: int | None = None
    census_s: float = 30.0


class Hangup:
    """SIGHUP asks for the web configuration to be read again."""

    def __enter__(self) -> Self:
        """Take over the signal."""
        self._asked = False
        self._before = signal.signal(signal.SIGHUP, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        signal.signal(signal.SIGHUP, self._before)

    def take(self) -> bool:
        """Say once whether it was asked for."""
        asked, self._asked = self._asked, False
        return asked

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True


def serve(wishes: ServeWishes) -> None:
    """Serve metrics until told to stop. Raises HostError, UsageError, FourwaveError."""
    memory.keep_little()
    account = privileges.account(wishes.user)
    with listen(wishes.addresses) as sockets, Web(sockets, wishes.web_config, account) as web:
        import_all()
        memory.settle()
        web.wait_ready()
        # From here on the ring fills: no waiting until it is read.
        with (
            attach(wishes) as source,
            census_helper(source, account, wishes, (sockets.close, web.forget)) as census,
        ):
            kept = give_up(source, account)
            web.warn()
            _follow(source, web, census, _told(source, sockets.names, account, kept))


def import_all() -> None:
    """Load every module that is ever used, while the web process starts.

    Once root is given up, files may be out of reach.
    """
    import heapq  # noqa: F401, PLC0415 - Counter.most_common() does at its first use

    from tracer import serve_samples, session, session_live  # noqa: F401, PLC0415
    from tracer.kernel import census, counters, ring, source  # noqa: F401, PLC0415


def attach(wishes: ServeWishes) -> KernelSource:
    """Return this host as a source."""
    from tracer.kernel.census import CensusSource  # noqa: PLC0415
    from tracer.kernel.source import KernelSource, Sizes  # noqa: PLC0415

    sizes = Sizes(ring_bytes=wishes.ring_bytes) if wishes.ring_bytes else None
    loader = KernelSource.load(sizes, census=CensusSource.options() if wishes.census_s else None)
    return KernelSource(loader)


def census_helper(
    source: KernelSource,
    account: privileges.Account | None,
    wishes: ServeWishes,
    others: tuple[Callable[[], None], ...],
) -> AbstractContextManager[CensusHelper | None]:
    """Fork the process that keeps what a census needs; None when none is wanted.

    There the rest of the tracer is let go of: the source, and what `others` close.
    """
    if not wishes.census_s:
        return contextlib.nullcontext()
    from tracer.kernel.census import CensusSource  # noqa: PLC0415

    def forget() -> None:
        source.close()
        for close in others:
            close()

    return CensusHelper(CensusSource(source.loaded), account, forget, wishes.census_s)


def give_up(source: KernelSource, account: privileges.Account | None) -> tuple[str, ...]:
    """Become the account and return what capabilities had to stay, found out by trial."""
    privileges.drop(account, privileges.names(privileges.FOLLOWING))
    return privileges.settle(source.needs, privileges.FOLLOWING)


def _follow(source: KernelSource, web: Web, census: CensusHelper | None, ready: str) -> None:
    from tracer.serve_samples import Composer  # noqa: PLC0415
    from tracer.session import Limits, Session  # noqa: PLC0415
    from tracer.session_live import Live, Pace, Stop  # noqa: PLC0415

    how = (census.mechanism, census.reason or "") if census else ("none", "not asked for")
    composer = Composer(source.manifest, source.host, created_s=time.time(), census=how)
    run = Session(source.host, counted=composer.tally.add, warn=runs.tell)
    # Nobody watches: closes wait for the second's samples, as long as the ring has room.
    # The first ones after a pause do not: reading them ends the pause.
    idle_s = min(ROOM_USED * source.room_s, IDLE_TICK_MAX_S)
    pace = Pace(
        TICK_S,
        idle_s,
        PATIENCE_NS,
        still_ns=STILL_NS,
        asleep_s=ASLEEP_S,
        clock_every_ns=SWEEP_EVERY_NS,
    )
    live = Live(source, Limits(), pace, keep=False)
    with Stop() as stop, Hangup() as hangup:
        beat = Beat(run, composer, web)
        beat.feed(source.counters())
        runs.tell(ready)
        notify(f"READY=1\nSTATUS={ready}\nMAINPID={os.getpid()}")
        for batch in live.batches(stop):
            if batch.kind is BatchKind.COUNTERS:
                beat.feed(batch)
                notify("WATCHDOG=1")
            else:
                run.feed(batch)
            if census is not None and (present := census.refresh(run.totals.records)) is not None:
                composer.present = present
                beat.show()
            if hangup.take():
                web.reload()
        notify("STOPPING=1")
        _finish(live, run, beat)


class Beat:
    """Samples whenever there are new ones; as long as there are none, signs of life."""

    def __init__(self, run: Session, composer: Composer, web: Web) -> None:
        self._run, self._composer, self._web = run, composer, web
        self._shown: tuple[bytes, int] = b"", 0
        self._totals: dict[str, Any] = {}

    def feed(self, counters: Batch) -> None:
        """Take the totals."""
        state = bytes(counters.data), self._run.totals.records
        if state == self._shown:
            self._web.show_again()
            return
        self._shown = state
        self._totals = json.loads(state[0])
        self._run.feed(counters)
        self.show()

    def show(self) -> None:
        """Show what there is now."""
        snapshot = self._run.totals.snapshot()
        self._web.show(self._composer.samples(snapshot, self._totals).to_json())


# Those who scrape once more before the sockets close see the final totals.
def _finish(live: Live, run: Session, beat: Beat) -> None:
    for batch in live.rest():
        if batch.kind is BatchKind.COUNTERS:
            beat.feed(batch)
        else:
            run.feed(batch)
    runs.tell(runs.summary_text(run.finish()))


def _told(
    source: KernelSource,
    names: list[str],
    account: privileges.Account | None,
    kept: tuple[str, ...],
) -> str:
    who = account.name if account else f"uid {os.geteuid()}"
    with_what = ", ".join(kept) or "no capability"
    where = ", ".join(names)
    mechanism = source.manifest["mechanism"]
    return f"ready: metrics of every TCP close at {where} ({mechanism}; as {who} with {with_what})"
