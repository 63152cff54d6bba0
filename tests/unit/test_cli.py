# SPDX-License-Identifier: Apache-2.0
"""The command line without a kernel: recordings in, text and exit codes out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.unit import builders as b
from tracer import cli as cli_module
from tracer import runs
from tracer.batch import Batch, BatchKind
from tracer.cli import cli
from tracer.errors import HostError
from tracer.recording import RecordingWriter
from tracer.wire import encode_closes

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

ROOT = Path(__file__).parents[2]
MADE = [b.passive(closer__comm=b"nginx"), b.active_four(), b.aborted(), b.reset()]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Return a recording of 23 times four closes, with clock and totals."""
    path = tmp_path / "a.rec"
    with RecordingWriter(str(path), runs.recording_header(b.HOST)) as writer:
        clock = {"realtime_minus_monotonic_ns": 10**18}
        writer.write(Batch(BatchKind.CLOCK, 1, json.dumps(clock).encode()))
        data = encode_closes(np.concatenate(MADE * 23))
        writer.write(Batch(BatchKind.CLOSES, 1 << 60, data))
        totals = {"closes": 92, "emitted": 92}
        writer.write(Batch(BatchKind.COUNTERS, 1 << 60, json.dumps(totals).encode()))
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_replay_shows_lines_and_summary(recording: Path) -> None:
    """A header, a line per close, and what it came to."""
    result = invoke("replay", recording)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["TIME", "PID", "COMM"]
    assert len([line for line in lines if "nginx" in line]) == 23
    assert "Nothing lost: the kernel saw 92 closes." in lines
    assert max(map(len, lines)) < 80


def test_replay_json_is_pure(recording: Path) -> None:
    """Objects alone are on stdout, the summary goes to stderr."""
    result = invoke("replay", "--json", recording)
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(objects) == 92
    assert {close["v"] for close in objects} == {1}
    assert "Nothing lost" in result.stderr


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--kind", "passive"], 23),
        (["--kind", "passive", "--kind", "abort"], 46),
        (["--handshake", "none"], 46),
        (["--handshake", "three_way"], 23),
        (["--port", "80", "--count", "7"], 7),
        (["--comm", "ngin?"], 23),
        (["--pid", "1"], 0),
        (["--raddr", "::/0"], 92),
        (["--raddr", "10.0.0.0/8"], 0),
        (["--netns", "0"], 92),
        (["--netns", "/proc/self/ns/net"], 0),
        (["--summary"], 0),
    ],
)
def test_replay_filters(recording: Path, options: list[str], count: int) -> None:
    """The same filters as watch."""
    result = invoke("replay", "--json", recording, *options)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--raddr", "10.0.0.0/33"], "10.0.0.0/8"),
        (["--netns", "no-such-name"], "/run/netns/no-such-name"),
        (["--kind", "peaceful"], "peaceful"),
        (["--port", "65536"], "65536"),
        (["--count", "0"], "0"),
    ],
)
def test_wrong_usage_is_2(recording: Path, options: list[str], message: str) -> None:
    """The message names what was wrong."""
    result = invoke("replay", recording, *options)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    "words",
    [("watch", "--duration"), ("top", "--every"), ("leaks", "--older"), ("serve", "--census")],
)
def test_no_number_is_no_time(words: tuple[str, str]) -> None:
    """Nan compares with nothing: it would be waited for for ever."""
    result = invoke(*words, "nan")
    assert result.exit_code == 2
    assert "'nan' is no number of seconds" in result.stderr


def test_damaged_recording_shows_what_is_whole_then_fails(recording: Path) -> None:
    """Everything before the damage is shown; then one line says where it is."""
    recording.write_bytes(recording.read_bytes()[:-1])
    result = invoke("replay", "--json", recording)
    assert len(result.stdout.splitlines()) == 92
    assert result.exit_code == 1
    assert "is damaged at byte" in result.stderr


def test_other_files_are_refused(tmp_path: Path) -> None:
    """One line, exit code 1."""
    (tmp_path / "x").write_text("hello")
    result = invoke("replay", tmp_path / "x")
    assert result.exit_code == 1
    assert "not a fourwave recording" in result.stderr


@pytest.mark.parametrize(
    "change",
    [{"wire_version": 99}, {"record_bytes": 1}, {"hz": None}, {"rst_reasons": [1]}, {"hz": 0}],
)
def test_foreign_header_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    """Records of another layout are not guessed at."""
    path = tmp_path / "a.rec"
    RecordingWriter(str(path), {**runs.recording_header(b.HOST), **change}).close()
    result = invoke("replay", path)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert str(path) in result.stderr


def test_noise_never_crashes(tmp_path: Path) -> None:
    """Whole frames of nonsense are shown as what they claim, or counted: never a traceback."""
    path = tmp_path / "a.rec"
    with RecordingWriter(str(path), runs.recording_header(b.HOST)) as writer:
        noise = b.noise(np.random.default_rng(23), 500)
        writer.write(Batch(BatchKind.CLOSES, 1, encode_closes(noise)))
    for form in ([], ["-w"], ["--json"]):
        result = invoke("replay", path, *form)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert result.exit_code == 0


def test_host_error_is_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this host lacks: its message as it is, no traceback."""

    def fail(_: object) -> None:
        raise HostError("cannot attach: EPERM (errno 1)\n  what to do: run it as root")

    monkeypatch.setattr(runs, "watch", fail)
    result = invoke("watch")
    assert result.exit_code == 3
    assert result.stderr == (
        "fourwave: cannot attach: EPERM (errno 1)\n  what to do: run it as root\n"
    )


def test_interrupt_before_any_result_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while attaching."""

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "watch", interrupt)
    assert invoke("watch").exit_code == 130


def test_a_bug_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback ever reaches a user, but how to get one does."""

    def stumble(_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(runs, "watch", stumble)
    monkeypatch.setattr(sys, "argv", ["fourwave", "watch"])
    with pytest.raises(SystemExit) as ended:
        cli_module.main()
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert "ZeroDivisionError: oops" in error
    assert "FOURWAVE_TRACEBACK=1 fourwave watch" in error
    assert error.count("\n") == 1


COMMANDS = (
    *("watch", "record", "replay", "top", "report", "leaks", "ports", "listeners", "census"),
    *("kill", "explain", "demo", "serve", "doctor"),
)


def test_only_what_works_is_listed() -> None:
    """Every listed command has a help text, and the contract's names."""
    assert tuple(cli.commands) == COMMANDS
    for name in cli.commands:
        result = invoke(name, "--help")
        assert result.exit_code == 0
        assert max(map(len, result.stdout.splitlines())) <= 80
    assert "..." not in invoke("--help").stdout.partition("Commands:")[2]  # none is cut


def test_color_is_asked_of_the_terminal(recording: Path) -> None:
    """Not a terminal: none. Told so: always."""
    assert "\x1b" not in invoke("replay", recording).stdout
    assert (
        "\x1b[31m"
        in CliRunner()
        .invoke(cli, ["replay", str(recording), "--color", "always"], color=True)
        .stdout
    )


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tracer", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=False,
        **options,
    )


def run(*arguments: str, stdout: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "tracer", *arguments],
        cwd=ROOT,
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )


def test_reader_that_goes_away_is_no_error(recording: Path) -> None:
    """`| head` ends it quietly."""
    reading, writing = os.pipe()
    os.close(reading)
    child = run("replay", str(recording), stdout=writing)
    os.close(writing)
    assert (child.returncode, child.stderr) == (0, b"")


@pytest.mark.parametrize(
    "words", [["replay"], ["replay", "--json"], ["report"], ["explain", "--in"], ["--help"]]
)
def test_a_full_disk_is_told(recording: Path, words: list[str]) -> None:
    """It is no bug to report; and what cannot be written is not tried again at the exit."""
    arguments = words if words == ["--help"] else [*words, str(recording)]
    with Path("/dev/full").open("wb") as full:
        child = run(*arguments, stdout=full)
    message = b"fourwave: cannot write to standard output: No space left on device (ENOSPC)\n"
    assert child.returncode == 1
    assert child.stderr.endswith(message)
    assert b"Traceback" not in child.stderr


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_closed_stream_is_no_other_file(recording: Path, closed: str) -> None:
    """Whoever starts it without a stream gets /dev/null there, not the recording."""
    words = f'exec "{sys.executable}" -m tracer replay "{recording}" {closed}'
    child = subprocess.run(["sh", "-c", words], cwd=ROOT, capture_output=True, check=False)
    assert (child.returncode, child.stderr) == (0, b"")
    assert child.stdout.count(b"nginx") == (0 if "1>&-" in closed else 23)


def test_standard_input_and_ascii_terminals(recording: Path) -> None:
    """A recording through a pipe, to a terminal without UTF-8."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    child = start("replay", "-w", "-", stdin=subprocess.PIPE, env=environment)
    out, err = child.communicate(recording.read_bytes(), timeout=30)
    assert (child.returncode, err) == (0, b"")
    assert out.count(b"nginx") == 23


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_a_replay_with_its_summary(tmp_path: Path, sign: signal.Signals) -> None:
    """A running view that is told to end has done its work: exit code 0."""
    path = tmp_path / "long.rec"
    data = encode_closes(np.concatenate(MADE * 100))
    with RecordingWriter(str(path), runs.recording_header(b.HOST)) as writer:
        for _ in range(400):
            writer.write(Batch(BatchKind.CLOSES, 1 << 60, data))
    child = start("replay", "--json", path)
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(sign)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 0
    assert b"closes" in err


def test_starts_quickly() -> None:
    """--version imports neither numpy nor anything of the kernel side."""
    code = (
        "import sys, tracer.cli; "
        "print(sorted({'numpy', 'tracer.kernel', 'tracer.session'} & set(sys.modules)))"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert child.stdout == "[]\n"


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None] | None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    return None
