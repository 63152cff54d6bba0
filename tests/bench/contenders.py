# SPDX-License-Identifier: Apache-2.0
"""What is compared: this tracer in its modes, and what a user would take instead."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench import meters, peers
from tests.bench.timetable import on_timetable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

READY_SECONDS: Final = 60.0  # bpftrace and bcc compile for seconds on a slow machine
STOP_SECONDS: Final = 30.0
SCRAPE_EVERY_SECONDS: Final = 1.0  # fifteen times as often as Prometheus does by default
FOURWAVE: Final = (sys.executable, "-m", "tracer")


class NotHere(Exception):  # noqa: N818 - an answer, not an error
    """This host cannot run the contender; the message is its own last words."""


# How fourwave's summary gives account.
ACCOUNTS: Final = {
    "shown": re.compile(r"^([\d,]+) closes?(?: \([\d,]+ more not shown\))?$", re.MULTILINE),
    "closes": re.compile(r"(?:kernel saw|of the) ([\d,]+) closes?\b"),
    "lost": re.compile(r"^LOST ([\d,]+) ", re.MULTILINE),
    "unaccounted": re.compile(r"^UNACCOUNTED: ([\d,]+) ", re.MULTILINE),
    "gaps": re.compile(r"^([\d,]+) state changes? missed", re.MULTILINE),
}


@dataclass(frozen=True, slots=True)
class Contender:
    """A command that traces until SIGINT. `{out}` in it is a scratch folder."""

    name: str
    command: tuple[str, ...]
    ours: bool = False  # says "ready" on stderr, and a summary at the end
    line: re.Pattern[bytes] | None = None  # what on stdout stands for one closed connection
    scraped: bool = False  # its ready line names where


# The shortest that a user would write: one line per close, without pairing or times.
ONE_LINER: Final = (
    "tracepoint:sock:inet_sock_set_state /args->newstate == 7 && args->protocol == 6/ "
    '{ printf("%s %d %s:%d %s:%d\\n", comm, pid, ntop(args->saddr), args->sport, '
    "ntop(args->daddr), args->dport); }"
)

BY_LOAD: Final = re.compile(rb"closes .*127\.1\.")
NOTHING: Final = (sys.executable, "-m", "tests.bench.nothing")
CONTENDERS: Final = (
    Contender("one empty program", (*NOTHING, "1")),
    Contender("two empty programs", (*NOTHING, "2")),
    Contender("fourwave summary", (*FOURWAVE, "watch", "--summary"), ours=True),
    Contender("fourwave json", (*FOURWAVE, "watch", "--json"), ours=True),
    Contender("fourwave record", (*FOURWAVE, "record", "--force", "{out}/closes.rec"), ours=True),
    Contender(
        "fourwave serve",
        (*FOURWAVE, "serve", "--listen", "127.0.0.1:0"),
        ours=True,
        scraped=True,
    ),
    Contender("libbpf tcplife", ("tcplife",), line=BY_LOAD),
    Contender("libbpf tcpstates", ("tcpstates",), line=re.compile(rb"127\.1\..*-> CLOSE ")),
    Contender("bcc tcplife", ("tcplife-bpfcc",), line=BY_LOAD),
    Contender("bcc tcpstates", ("tcpstates-bpfcc",), line=re.compile(rb"127\.1\..*-> CLOSE ")),
    Contender("bpftrace tcplife", ("bpftrace", "/usr/sbin/tcplife.bt"), line=BY_LOAD),
    Contender("bpftrace one-liner", ("bpftrace", "-e", ONE_LINER), line=BY_LOAD),
)


class Running:
    """A contender that is attached: its process, and what it has written so far."""

    def __init__(self, contender: Contender, scratch: Path) -> None:
        self.contender = contender
        self._out = scratch / "stdout"
        self._err = scratch / "stderr"
        command = [word.replace("{out}", str(scratch)) for word in contender.command]
        if not shutil.which(command[0]):
            raise NotHere("not installed")
        if not contender.ours:
            command = [*peers.WITH_TRACEFS, *command]
        started_ns = time.monotonic_ns()
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=_environment(scratch)
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()  # or it would trace beside all that is measured next
            raise
        self.ready_seconds = (time.monotonic_ns() - started_ns) / 1e9

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that stay, whose cost is measured."""
        return meters.family(self._process.pid)

    @property
    def url(self) -> str:
        """Where to scrape it."""
        address = re.search(r"127\.0\.0\.1:\d+", self._err.read_text())
        return f"http://{address[0]}/metrics" if address else ""

    def stop(self) -> None:
        """Interrupt it and wait; kills it when it does not end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def accounts(self) -> dict[str, int]:
        """Return what its closing summary says was seen, lost and missed; empty without one."""
        text = _tail(self._out) + _tail(self._err)
        found = {name: pattern.findall(text) for name, pattern in ACCOUNTS.items()}
        if not found["closes"]:
            return {}
        return {
            name: sum(int(number.replace(",", "")) for number in numbers)
            for name, numbers in found.items()
        }

    def closes_written(self) -> int | None:
        """Return how many closes of the load it wrote, None when it does not write any."""
        pattern = self.contender.line
        if pattern is None:
            return None
        with self._out.open("rb") as out:
            return sum(1 for line in out if pattern.search(line))

    def last_words(self) -> str:
        """Return the last line it printed, for somebody who wonders why it ended."""
        return _last_line(self._err) or _last_line(self._out) or "ended without a word"

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise NotHere(self.last_words())
            if self._is_ready():
                return
            time.sleep(0.005)
        self.stop()
        raise NotHere(f"not attached after {READY_SECONDS:.0f} s")

    # A foreign tool is ready when it has a program and reads from a map of events.
    def _is_ready(self) -> bool:
        if self.contender.ours:
            return any(line.startswith("ready") for line in self._err.read_text().splitlines())
        if not meters.program_ids(self.pids):
            return False
        time.sleep(1.0)  # attaching goes on after the first program is loaded
        return True


def _environment(scratch: Path) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root, **peers.environment(scratch)}


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 65536))
        return file.read().decode(errors="replace")


def _last_line(path: Path) -> str:
    return next((line.strip() for line in reversed(_tail(path).splitlines()) if line.strip()), "")


@contextmanager
def running(contender: Contender, scratch: Path) -> Iterator[Running]:
    """Start a contender, wait until it is attached, stop it at the end; raises NotHere."""
    process = Running(contender, scratch)
    try:
        with _scraping(process.url) if contender.scraped else nullcontext():
            yield process
    except (ProcessLookupError, FileNotFoundError) as gone:
        raise NotHere(process.last_words()) from gone
    finally:
        process.stop()


def _scraping(url: str) -> AbstractContextManager[None]:
    def scrape() -> None:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
            answer.read()

    return on_timetable(SCRAPE_EVERY_SECONDS, scrape)
