# SPDX-License-Identifier: Apache-2.0
"""Whatever the loader child does, its end is told in words, soon, and nothing of it stays."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tracer.errors import HostError, UsageError
from tracer.kernel import launch, lockdown
from tracer.kernel.launch import Loader, bpf_dir, python_candidates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).parents[2]
SOON_S: Final = 8.0

# Fake interpreters are called as the real one: -I load.py CHANNEL_FD OPTIONS_JSON.
SEND: Final = f"""
import json, socket, sys
sys.path.insert(0, {str(ROOT)!r})
from tracer.kernel import handoff
channel = socket.socket(fileno=int(sys.argv[3]))
"""

OPTIONS: Final = {
    "sets": ["teardown"],
    "rings": 1,
    "ring_pages": 1,
    "slots": 1,
    "conn_max": 1,
    "cpu_slots": 1,
    "strays_max": 1,
    "sweep_slots": 1,
}

# The real loader, whoever runs the tests and whatever BCC there is.
REAL: Final = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from tracer.kernel import load
load.check_privilege = lambda: None
"""
NO_BCC: Final = REAL + "sys.modules['bcc'] = None\nos._exit(load.main(sys.argv[2:]))\n"


def error_report(stage: str, message: str, code: int = 0, detail: str = "") -> str:
    report = {"stage": stage, "message": message, "errno": code, "detail": detail}
    return SEND + f"handoff.send(channel, {{'error': {report!r}}}, {{}})\n"


@pytest.fixture
def shell(tmp_path: Path) -> Callable[[str, str], str]:
    """Make an executable of a shell text; return its path."""

    def make(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def python(tmp_path: Path, shell: Callable[[str, str], str]) -> Callable[[str, str], str]:
    """Make an executable of a Python text; return its path."""

    def make(name: str, text: str) -> str:
        script = tmp_path / f"{name}.py"
        script.write_text(text)
        return shell(name, f'exec "{sys.executable}" "{script}" "$@"')

    return make


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FOURWAVE_LOADER_TIMEOUT_S", "20")
    monkeypatch.setenv("FOURWAVE_CACHE", "off")
    before, start = open_fds(), time.monotonic()
    yield
    assert open_fds() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert time.monotonic() - start < SOON_S


def open_fds() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def use(monkeypatch: pytest.MonkeyPatch, *interpreters: str) -> None:
    monkeypatch.setattr(launch, "python_candidates", lambda: list(interpreters))


def failure(interpreter: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what the user is told when this is the only interpreter."""
    monkeypatch.setenv("FOURWAVE_BCC_PYTHON", interpreter)
    with pytest.raises(HostError) as caught:
        Loader(OPTIONS).wait()
    assert caught.value.exit_code == 3
    text = str(caught.value)
    assert interpreter in text
    assert "what to do: " in text.splitlines()[-1]
    return text


def is_running(pid: int) -> bool:
    """Return whether this process runs, a zombie that nobody waits for left out."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SOON_S / 2
    while not true() and time.monotonic() < deadline:
        time.sleep(0.005)
    return true()


def test_what_was_handed_over_is_returned(
    python: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("of the ring")
    text = SEND + (
        f"file = open({str(tmp_path / 'file')!r})\n"
        "handoff.send(channel, json.loads(sys.argv[4]), {'ring': file.fileno()})\n"
    )
    interpreter = python("good", text)
    monkeypatch.setenv("FOURWAVE_BCC_PYTHON", interpreter)

    loaded = Loader({"slots": 4}).wait()

    assert loaded.manifest == {
        "slots": 4,
        "bpf_dir": str(bpf_dir()),
        "python_path": interpreter,
    }
    assert os.read(loaded.fds["ring"], 100) == b"of the ring"
    os.close(loaded.fds["ring"])


def test_a_loader_that_lingers_is_not_waited_for(
    python: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The programs stay attached by their descriptors, which are here."""
    text = SEND + "handoff.send(channel, {}, {})\nimport time\ntime.sleep(100)\n"
    monkeypatch.setenv("FOURWAVE_BCC_PYTHON", python("lingers", text))
    assert Loader({}).wait().fds == {}


def test_an_interpreter_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = failure(str(tmp_path / "absent"), monkeypatch)
    assert "cannot run" in text
    assert "No such file or directory (errno 2)" in text
    assert "FOURWAVE_BCC_PYTHON" in text


def test_an_interpreter_that_may_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    assert "Permission denied (errno 13)" in failure(str(tmp_path / "plain"), monkeypatch)


def test_an_interpreter_that_is_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "noise").write_bytes(b"\0\1\2\3")
    (tmp_path / "noise").chmod(0o755)
    assert "Exec format error (errno 8)" in failure(str(tmp_path / "noise"), monkeypatch)


def test_no_python_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch)
    with pytest.raises(HostError, match=r"no python3 was found.*apt install python3-bpfcc"):
        Loader({})


def test_no_bcc(python: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = failure(python("nobcc", NO_BCC), monkeypatch)
    assert "BCC's Python module was not found" in text
    for package in ("python3-bpfcc", "python3-bcc", "python-bcc"):
        assert package in text
    assert "pip install" not in text


def test_the_wrong_bcc(
    python: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """PyPI's package of that name is a crystal lattice library."""
    package = tmp_path / "site" / "bcc"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("lattice = 'body-centred cubic'\n")
    shadow = f"sys.path.insert(0, {str(package.parent)!r})\nos._exit(load.main(sys.argv[2:]))\n"
    text = failure(python("wrongbcc", REAL + shadow), monkeypatch)
    assert "the module named bcc is the wrong one" in text
    assert f"{package}/__init__.py" in text
    assert "pip uninstall bcc" in text
    assert "python3-bpfcc" in text


def test_bcc_without_its_library(
    python: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bcc.py").write_text("import ctypes\nctypes.CDLL('libbcc-absent.so.0')\n")
    # The folder of the script comes first in its sys.path.
    text = failure(python("nolib", REAL + "os._exit(load.main(sys.argv[2:]))\n"), monkeypatch)
    assert "libbcc-absent.so.0" in text
    assert "python3-bpfcc" in text


@pytest.mark.parametrize("code", [0, 3])
def test_a_loader_that_exits_silently(
    shell: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    text = failure(shell("exits", f"exit {code}"), monkeypatch)
    assert f"exited with {code}; nothing stays attached" in text


def test_the_last_words_of_a_loader_are_shown(
    shell: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "echo Traceback >&2; for n in 1 2 3 4 5 6 7; do echo line $n; done; exit 1"
    text = failure(shell("talks", "echo first; " + lines), monkeypatch)
    shown = [line for line in text.splitlines() if line.startswith("  | ")]
    assert shown == ["  | Traceback", *(f"  | line {n}" for n in range(1, 8))]


def test_words_in_any_bytes_are_shown(
    shell: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert r"  | \xff!" in failure(shell("bytes", r"printf '\377!\n'"), monkeypatch)


@pytest.mark.parametrize(
    ("signal", "name", "remedy"), [("KILL", "SIGKILL", "dmesg"), ("SEGV", "SIGSEGV", "report")]
)
def test_a_loader_that_is_killed(
    shell: Callable[[str, str], str],
    monkeypatch: pytest.MonkeyPatch,
    signal: str,
    name: str,
    remedy: str,
) -> None:
    text = failure(shell("killed", f"ulimit -c 0; kill -{signal} $$"), monkeypatch)
    assert f"was killed by {name}" in text
    assert remedy in text.splitlines()[-1]


def test_a_loader_that_hangs(
    shell: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is stopped at the deadline, and with it what it has started itself."""
    monkeypatch.setenv("FOURWAVE_LOADER_TIMEOUT_S", "1")
    hang = f"echo waiting; sleep 100 & echo $! > {tmp_path}/pid; wait"
    text = failure(shell("hangs", hang), monkeypatch)
    assert "did not finish within 1 s; it was stopped; nothing stays attached" in text
    assert "  | waiting" in text
    assert "FOURWAVE_LOADER_TIMEOUT_S=300" in text.splitlines()[-1]
    sleeper = int((tmp_path / "pid").read_text())
    assert wait_until(lambda: not is_running(sleeper))


def test_a_loader_that_closes_its_channel_and_stays(
    python: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOURWAVE_LOADER_TIMEOUT_S", "1")
    stay = "import os, sys, time\nos.close(int(sys.argv[3]))\ntime.sleep(100)\n"
    assert "fell silent and was stopped" in failure(python("stays", stay), monkeypatch)


@pytest.mark.parametrize("words", [b"garbage", b"\xff\0\x80", b"[1, 2]", b'{"fds": ["a"]}'])
def test_a_loader_that_sends_garbage(
    python: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch, words: bytes
) -> None:
    send = f"import os, sys\nos.write(int(sys.argv[3]), {words!r})\n"
    text = failure(python("garbage", send), monkeypatch)
    assert f"sent not a manifest: {words!r}" in text


@pytest.mark.parametrize(
    ("report", "cause", "remedy"),
    [
        (("privilege", "this process lacks CAP_BPF", 1), "lacks CAP_BPF (errno 1)", "sudo"),
        (("btf", "/sys/kernel/btf/vmlinux: gone", 2), "(BTF) cannot be used", "CONFIG_DEBUG_INFO"),
        (("compile", "Failed to compile"), "did not compile on", "report"),
        (("load", "load set_state: no", 1), "refused a BPF program", "lockdown"),
        (("load", "load set_state: full", 24), "refused a BPF program", "ulimit -n"),
        (("load", "load set_state: no", 13), "(errno 13)", "lockdown"),
        (("load", "load set_state: no", 22, "R1 invalid"), "R1 invalid", "report"),
    ],
)
def test_what_the_loader_reports(
    python: Callable[[str, str], str],
    monkeypatch: pytest.MonkeyPatch,
    report: tuple[Any, ...],
    cause: str,
    remedy: str,
) -> None:
    """Each stage has its cause and its remedy."""
    text = failure(python("reports", error_report(*report)), monkeypatch)
    assert report[1] in text
    assert cause in text
    assert remedy in text.splitlines()[-1]


def test_what_lockdown_refuses_is_no_bug_to_report(
    python: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lines name the lockdown; the verifier's log, of a helper taken away, is left out."""
    monkeypatch.setattr(lockdown, "mode", lambda: "confidentiality")
    refusal = error_report("load", "load sweep: no", 22, "cannot use helper")
    said, remedy = failure(python("reports", refusal), monkeypatch).splitlines()
    assert said.startswith("the kernel is locked down (confidentiality)")
    assert "load sweep: no (errno 22)" in said
    assert "lockdown=integrity" in remedy


def test_a_compilers_first_error_is_shown(
    python: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = "\n".join(["noise"] * 20 + ["a.c:3: error: no such field"] + ["context"] * 20)
    script = f"print({output!r}, flush=True)\n" + error_report("compile", "Failed to compile")
    text = failure(python("compiles", script), monkeypatch)
    shown = [line for line in text.splitlines() if line.startswith("  | ")]
    assert shown == ["  | a.c:3: error: no such field", *["  | context"] * 7]


def test_the_next_interpreter_is_tried_for_bcc(
    python: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = python("good", SEND + "handoff.send(channel, {'works': 1}, {})\n")
    wrong = python("wrong", error_report("bcc_wrong", "no BPF in it"))
    use(monkeypatch, python("nobcc", NO_BCC), wrong, good)
    assert Loader(OPTIONS).wait().manifest == {"works": 1, "python_path": good}


def test_all_interpreters_without_bcc_are_named(
    python: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [python(name, error_report("bcc_missing", f"not {name}")) for name in "abc"]
    use(monkeypatch, *names)
    with pytest.raises(HostError) as caught:
        Loader({}).wait()
    text = str(caught.value)
    assert f"not c [{names[2]}]" in text
    assert f"also tried {names[0]}: not a; {names[1]}: not b" in text
    assert text.count("what to do") == 1


def test_other_failures_try_no_other_interpreter(
    python: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that refuses one loader refuses them all."""
    good = python("good", SEND + "handoff.send(channel, {'works': 1}, {})\n")
    use(monkeypatch, python("refused", error_report("load", "no", 1)), good)
    with pytest.raises(HostError, match="refused"):
        Loader({}).wait()


@pytest.mark.parametrize("value", ["soon", "0", "-1", "inf", "nan"])
def test_a_senseless_deadline_is_wrong_usage(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FOURWAVE_LOADER_TIMEOUT_S", value)
    with pytest.raises(UsageError, match="FOURWAVE_LOADER_TIMEOUT_S"):
        Loader({})


def test_the_chosen_interpreter_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURWAVE_BCC_PYTHON", "/opt/python")
    assert python_candidates() == ["/opt/python"]


def test_interpreters_come_likeliest_first_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The distribution's own first; a virtual environment of it is the same one again."""
    monkeypatch.delenv("FOURWAVE_BCC_PYTHON", raising=False)
    links = {
        "/usr/bin/python3": "/usr/bin/python3.11",
        "/usr/bin/python3.11": "/usr/bin/python3.11",
        "/usr/bin/python3.9": "/usr/bin/python3.9",
        "/venv/bin/python3": "/usr/bin/python3.11",
    }
    monkeypatch.setattr(os, "access", lambda path, _mode: path in links)
    monkeypatch.setattr(os.path, "realpath", lambda path: links[path])
    monkeypatch.setattr(shutil, "which", lambda _name: "/venv/bin/python3")
    assert python_candidates() == ["/usr/bin/python3", "/usr/bin/python3.9"]


def test_an_interpreter_of_another_origin_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOURWAVE_BCC_PYTHON", raising=False)
    monkeypatch.setattr(os, "access", lambda path, _mode: path == "/usr/bin/python3")
    monkeypatch.setattr(os.path, "realpath", lambda path: path)
    monkeypatch.setattr(shutil, "which", lambda _name: "/opt/bin/python3")
    assert python_candidates() == ["/usr/bin/python3", "/opt/bin/python3"]


def test_options_reach_the_loader_as_json(
    python: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"slots": 8, "text": "with \"quotes\", 'more' and $HOME"}
    send = SEND + "handoff.send(channel, {'argv': sys.argv[1:]}, {})\n"
    monkeypatch.setenv("FOURWAVE_BCC_PYTHON", python("echo", send))
    isolated, script, _channel, received = Loader(options).wait().manifest["argv"]
    assert isolated == "-I"
    assert Path(script).name == "load.py"
    assert json.loads(received) == {**options, "bpf_dir": str(bpf_dir())}


def test_missing_sources_are_an_incomplete_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launch, "__file__", str(tmp_path / "tracer/kernel/launch.py"))
    with pytest.raises(HostError, match="the installation is incomplete"):
        bpf_dir()


@pytest.mark.parametrize("folder", ["/proc", "/sys"])
def test_a_bare_chroot_is_told(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without these file systems nothing works: the message says which, and how to get it."""
    there = Path.exists
    hidden = {Path("/proc/self"), Path("/sys/kernel")}
    hidden = {path for path in hidden if path.is_relative_to(folder)}
    monkeypatch.setattr(Path, "exists", lambda path: path not in hidden and there(path))
    with pytest.raises(HostError, match=rf"^{folder} is not mounted\n  what to do: mount -t "):
        Loader(OPTIONS)
