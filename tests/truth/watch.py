# SPDX-License-Identifier: Apache-2.0
"""The tracer as its users start it: a subprocess, its `ready` line, its JSON lines."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from tests.pace import allowed_s

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from tests.truth.compare import Record

ROOT = Path(__file__).resolve().parents[2]
READY_S = allowed_s(60.0)
RECORDS_S = allowed_s(20.0)
STOP_S = allowed_s(30.0)
LOSS_TOLD_S = allowed_s(15.0)
ASK_EVERY_S = 0.02
EXIT_HOST_LACKS = 3


class WatchError(Exception):
    """The tracer did not start or did not end as it must."""


class HostLacksError(WatchError):
    """The tracer says this host lacks something (exit code 3); the message is its own."""


def only_in(inums: Iterable[int]) -> list[str]:
    """Return the arguments that show these namespaces alone."""
    return [word for inum in sorted(inums) for word in ("--netns", str(inum))]


class Watch:
    """One running `watch --json`. Records are kept in order of arrival."""

    def __init__(self, arguments: Iterable[str] = ()) -> None:
        """Start it and return when it says `ready`; raises WatchError."""
        self.errors: list[str] = []
        self.counted: dict[int, int] = {}
        self._records: list[Record] = []
        self._lock = threading.Lock()
        self._ready = threading.Event()
        command = [sys.executable, "-m", "tracer", "watch", "--json", *arguments]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            threading.Thread(target=reader, args=(stream,), daemon=True)
            for reader, stream in (
                (self._read_records, self._process.stdout),
                (self._read_errors, self._process.stderr),
            )
        ]
        for reader in self._readers:
            reader.start()
        self._await_ready()

    def _read_records(self, stream: IO[str]) -> None:
        for line in stream:
            record = json.loads(line)
            with self._lock:
                netns = record["netns"]
                if netns in self.counted:
                    self.counted[netns] += 1
                else:
                    self._records.append(record)

    def _read_errors(self, stream: IO[str]) -> None:
        for line in stream:
            self.errors.append(line.rstrip("\n"))
            if line.startswith("ready"):
                self._ready.set()
        self._ready.set()

    def _await_ready(self) -> None:
        said = self._ready.wait(READY_S)
        if said and any(line.startswith("ready") for line in self.errors):
            return
        self._process.kill() if not said else None
        code = self._finish()
        text = f"watch ended with {code} before it was ready: {' / '.join(self.errors[-5:])}"
        raise HostLacksError(text) if code == EXIT_HOST_LACKS else WatchError(text)

    def _finish(self) -> int:
        code = self._process.wait(STOP_S)
        for reader in self._readers:
            reader.join(STOP_S)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        return code

    def lost(self) -> int:
        """Return how many closes it has said it lost, on the whole host."""
        said = [line for line in self.errors if line.startswith("lost: ")]
        return int(said[-1].split()[1].replace(",", "")) if said else 0

    def accounts_for(self, missing: int, lost_before: int) -> bool:
        """Whether it says by itself, soon, that so many closes are lost since `lost_before`."""
        return not missing or self.wait_for(
            lambda: self.lost() - lost_before >= missing, LOSS_TOLD_S
        )

    def only_count(self, netns: int) -> None:
        """From now on count the records of this namespace in `counted` and do not keep them."""
        self.counted[netns] = 0

    def records(self, inums: Collection[int], since: int = 0) -> list[Record]:
        """Return the records of these namespaces that arrived after `mark()` gave `since`."""
        with self._lock:
            return [record for record in self._records[since:] if record["netns"] in inums]

    def mark(self) -> int:
        """Return a place in the stream for `records`."""
        with self._lock:
            return len(self._records)

    def wait_for(self, condition: Callable[[], bool], deadline_s: float = RECORDS_S) -> bool:
        """Wait until `condition` holds; False at the deadline.

        Asked now and then, not after every record: that would slow the reader, and then the
        tracer behind its full pipe.
        """
        end = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(ASK_EVERY_S)
        return True

    def wait_records(self, inums: Collection[int], since: int, count: int) -> list[Record]:
        """Return the records once there are `count`, or what there is at the deadline."""
        self.wait_for(lambda: len(self.records(inums, since)) >= count)
        return self.records(inums, since)

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; raises WatchError."""
        self.stop()

    def stop(self) -> None:
        """SIGINT; raises WatchError unless it ends with 0."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            code = self._finish()
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._finish()
            raise WatchError(f"watch did not end on SIGINT within {STOP_S} s") from None
        if code:
            raise WatchError(f"watch ended with {code}: {' / '.join(self.errors[-5:])}")
