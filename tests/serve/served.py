# SPDX-License-Identifier: Apache-2.0
"""A running `fourwave serve`, and what to ask it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Callable

READY_S: Final = 30.0
END_S: Final = 15.0
SETTLE_S: Final = 15.0
TRIES: Final = 3

HOOKED: Final = {
    "fourwave_accept_wait_seconds": "accepted",
    "fourwave_time_wait_changes_total": "time_wait",
}
"""Metrics that only a hook can feed."""

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Served:
    """One `fourwave serve` on a port of its own."""

    def __init__(self, *options: str) -> None:
        """Start it and wait for its ready line. Raises RuntimeError with what it said instead."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tracer", "serve", "--listen", "127.0.0.1:0", *options],
            stderr=self._log,
            start_new_session=True,
        )
        line = until(lambda: self._ready() or self.process.poll() is not None, READY_S)
        ready = re.search(r"127\.0\.0\.1:(\d+)", line if isinstance(line, str) else "")
        if ready is None:
            self.stop(signal.SIGKILL)
            said = self.said()
            self._log.close()
            raise RuntimeError(said)
        self.port = int(ready[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def said(self) -> str:
        """Return what it wrote to stderr so far."""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode()

    def _ready(self) -> str | None:
        return next((line for line in self.said().splitlines() if line.startswith("ready")), None)

    def get(self, path: str = "/metrics", **headers: str) -> tuple[bytes, dict[str, str]]:
        """Return the body of an answer and its headers. Raises urllib.error.HTTPError."""
        request = urllib.request.Request(  # noqa: S310
            self.url + path, headers={name.replace("_", "-"): v for name, v in headers.items()}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.read(), dict(answer.headers)

    def series(self) -> Series:
        """Return all samples."""
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.get()[0].decode())
            for sample in family.samples
        }

    def unhooked(self) -> set[str]:
        """Return the metrics that nothing feeds, as this kernel does not allow their hooks."""
        return {
            metric
            for metric, hook in HOOKED.items()
            if self.total("fourwave_hook_info", hook=hook, mechanism="none")
        }

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of all samples of this name that have these labels."""
        wanted = set(labels.items())
        return sum(
            value
            for (found, has), value in self.series().items()
            if found == name and has >= wanted
        )

    def children(self) -> dict[str, int]:
        """Return the pids of the other two processes."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        pids = map(int, text.split())
        return {
            "web" if b"tracer.web" in Path(f"/proc/{pid}/cmdline").read_bytes() else "census": pid
            for pid in pids
        }

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; return its exit status."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            return self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it if it runs."""
        try:
            self.stop()
        finally:
            self._log.close()


def until(condition: Callable[[], Any], limit_s: float = SETTLE_S) -> Any:
    """Return the first true answer of a condition, the last one when time is over."""
    deadline_s = time.monotonic() + limit_s
    while not (answer := condition()) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    return answer


def make_every_kind() -> set[str]:
    """Let the demonstration's actor make its closes; return the names of what it made."""
    actor = subprocess.run(
        [sys.executable, "-m", "tracer.demo.actor"],
        input=b"go\n",
        capture_output=True,
        check=True,
        timeout=60,
    )
    answers = [json.loads(line) for line in actor.stdout.splitlines()[1:]]
    return {answer["scenario"] for answer in answers if "ends" in answer}


def make_every_kind_until(condition: Callable[[], Any]) -> bool:
    """Say whether it holds once every kind was made; one of each, so a busy host may be late."""

    def holds() -> bool:
        make_every_kind()
        return bool(until(condition))

    return any(holds() for _ in range(TRIES))


def make_closes(count: int) -> None:
    """Open and close so many connections on loopback; the tracer sees both ends of each."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        for _ in range(count):
            with socket.create_connection(server.getsockname()):
                server.accept()[0].close()


def refused(count: int) -> None:
    """Connect so often to a port on loopback where nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for _ in range(count):
            with socket.socket() as client:
                client.connect_ex(closed.getsockname())
