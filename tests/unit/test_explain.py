# SPDX-License-Identifier: Apache-2.0
"""`fourwave explain`: words, the last closes of a recording, the next ones of a running host."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest
from click.testing import CliRunner

from tests.unit import builders as b
from tracer import runs
from tracer.batch import Batch, BatchKind
from tracer.cli import cli
from tracer.outputs import topics
from tracer.recording import RecordingWriter
from tracer.wire import encode_closes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from click.testing import Result

    from tracer.wire import Records

WIDTH = 79


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(cli, ["explain", *map(str, arguments)])
    if "--json" not in arguments:
        assert max(map(len, result.stdout.splitlines()), default=0) <= WIDTH
    return result


def closes(*made: Records, mono_ns: int = 1 << 60) -> Batch:
    return Batch(BatchKind.CLOSES, mono_ns, encode_closes(np.concatenate(made)))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Return a recording of two batches; in the first the later close stands first."""
    path = tmp_path / "a.rec"
    first = [b.reset(closed_ns=b.CLOSED_NS + 5), b.passive(closer__comm=b"nginx")]
    second = [b.active_four(closed_ns=b.CLOSED_NS + 6), b.aborted(unread=5, lport=4711)]
    with RecordingWriter(str(path), runs.recording_header(b.HOST)) as writer:
        writer.write(Batch(BatchKind.CLOCK, 1, b'{"realtime_minus_monotonic_ns":1000000000000}'))
        writer.write(closes(*first))
        writer.write(closes(*second))
    return path


def test_without_a_topic_all_are_listed() -> None:
    result = invoke()
    assert result.exit_code == 0
    listed = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("  ")]
    assert listed == [section.name for section in topics.sections()]


@pytest.mark.parametrize("section", topics.sections(), ids=lambda s: f"{s.group} {s.name}")
def test_every_topic_is_explained(section: topics.Section) -> None:
    """Name, summary, ladder, meaning, fault and remedy."""
    result = invoke(section.name.upper().replace("_", "-"))
    assert result.exit_code == 0
    assert f"{section.name} ({section.group})\n{section.summary}\n" in result.stdout
    assert section.ladder[-1] in result.stdout
    assert all(f"\n{title}: " in result.stdout for title in section.parts)
    assert "**" not in result.stdout


def test_several_topics_each_once() -> None:
    result = invoke("passive", "three_way", "PASSIVE")
    assert result.stdout.count("What it means:") == 2


@pytest.mark.parametrize(
    ("word", "hint"), [("unred_data", "did you mean unread_data?"), ("zzzz", "no topic 'zzzz'\n")]
)
def test_unknown_topic_lists_the_others(word: str, hint: str) -> None:
    """Wrong usage, and what is there."""
    result = invoke("active", word)
    assert (result.exit_code, result.stdout) == (2, "")
    assert hint in result.stderr
    assert all(section.name in result.stderr for section in topics.sections())


@pytest.mark.parametrize(
    "arguments",
    [
        ("active", "--last"),
        ("active", "--in", "x"),
        ("--in", "x", "--last"),
        ("--in", "x", "--duration", "1"),
        ("--port", "80"),
        ("--count", "2"),
        ("active", "--duration", "2"),
    ],
)
def test_what_makes_no_sense_is_2(arguments: tuple[str, ...]) -> None:
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_topics_as_json() -> None:
    (one,) = map(json.loads, invoke("--json", "peer").stdout.splitlines())
    assert (one["group"], one["name"]) == ("cause", "peer")
    assert len(invoke("--json").stdout.splitlines()) == len(topics.sections())


def test_the_last_of_a_recording(recording: Path) -> None:
    """The last by time, with ladder, verdict, why and remedy."""
    result = invoke("--in", recording)
    assert result.exit_code == 0
    assert "active, four_way, ACK of the first FIN: pure" in result.stdout
    assert "│◀────────── FIN ──────────│ LAST_ACK" in result.stdout
    assert "Why: four segments: the application closed first" in result.stdout
    assert "At fault: Nobody." in result.stdout
    assert "What to do: Nothing, for one close." in result.stdout
    assert result.stdout.endswith("More: fourwave explain active four_way\n")


def test_more_and_chosen_ones(recording: Path) -> None:
    """--count counts back from the end, filters are those of watch, JSON holds the contract."""
    whole = [
        json.loads(line)
        for line in invoke("--in", recording, "--count", 9, "--json").stdout.splitlines()
    ]
    assert [one["close"]["kind"] for one in whole] == ["passive", "reset", "abort", "active"]
    assert whole[2]["topics"] == ["abort", "unread_data"]
    assert "shutdown(SHUT_WR)" in whole[2]["what_to_do"]
    result = invoke("--in", recording, "--count", 2)
    assert result.stdout.count("Why: ") == 2
    assert "nginx" in invoke("--in", recording, "--comm", "ngi*").stdout
    assert "unread_data" in invoke("--in", recording, "--port", 4711).stdout


def test_nothing_matches_is_1(recording: Path) -> None:
    result = invoke("--in", recording, "--port", 9)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "none of 4 closes matched" in result.stderr


def test_damaged_recording_is_drawn_then_fails(recording: Path) -> None:
    """What was whole is explained; the damage is told after it."""
    recording.write_bytes(recording.read_bytes()[:-1])
    result = invoke("--in", recording)
    assert result.exit_code == 1
    assert "Why: " in result.stdout
    assert "is damaged at byte" in result.stderr


def test_noise_never_crashes(tmp_path: Path) -> None:
    """Nonsense is drawn as what it claims."""
    path = tmp_path / "a.rec"
    noise = b.noise(np.random.default_rng(23), 300)
    with RecordingWriter(str(path), runs.recording_header(b.HOST)) as writer:
        writer.write(closes(noise, mono_ns=1))
    for form in ([], ["--json"]):
        result = CliRunner().invoke(cli, ["explain", "--in", str(path), "--count", "300", *form])
        assert (result.exit_code, result.exception) == (0, None)


class Kernel:
    """A running host made by hand: hands out the given drains, one per call."""

    ring_bytes = 1 << 20
    waiting_bytes = 0
    host = b.HOST

    def __init__(self, *drains: Records) -> None:
        self.waiting = list(drains)

    def __enter__(self) -> Self:
        """Be attached."""
        return self

    def __exit__(self, *_: object) -> None:
        """Detach."""

    def drain(self) -> Batch | None:
        """Return the next drain."""
        return closes(self.waiting.pop(0)) if self.waiting else None

    def sweep(self) -> None:
        """Find nothing."""

    def stop_following(self) -> None:
        """Let nothing new in."""

    def counters(self) -> Batch:
        """Return totals."""
        return Batch(BatchKind.COUNTERS, 1, b'{"closes":0,"emitted":0}')

    def clock(self) -> Batch:
        """Return a wall clock."""
        return Batch(BatchKind.CLOCK, 1, b'{"realtime_minus_monotonic_ns":5}')

    def cgroup_names(self, ids: Iterable[int]) -> Batch:
        """Name them."""
        return Batch(
            BatchKind.NAMES, 1, json.dumps({"cgroups": {n: f"/u{n}" for n in ids}}).encode()
        )


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what makes a host of the given drains the one that is attached to."""

    def attach(*drains: Records) -> None:
        monkeypatch.setattr(runs, "attach", lambda: Kernel(*drains))

    return attach


def test_the_next_close_that_matches(attached: Any) -> None:
    """One is drawn, and that is the end; `ready` comes first."""
    attached(b.reset(), b.passive(cgroup_id=7), b.passive())
    result = invoke("--last", "--kind", "passive")
    assert result.exit_code == 0
    assert result.stdout.count("Why: ") == 1
    assert "in /u7" in result.stdout
    assert result.stderr.startswith("ready")


def test_waiting_ends_without_a_match(attached: Any) -> None:
    """Nothing to draw within the time: 1, and it says so."""
    attached(b.reset())
    result = invoke("--last", "--kind", "passive", "--duration", "0.01")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "none of 1 close matched" in result.stderr


def test_interrupted_before_any_is_130(attached: Any) -> None:
    """Ctrl-C while waiting."""
    attached()
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    assert invoke("--last").exit_code == 130
    timer.join()
