# SPDX-License-Identifier: Apache-2.0
"""The matrix of kernels: its table, and the page made from the results."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.vm import compiler, debian, guest, page
from tests.vm.guest import ROOT
from tests.vm.inside import BEGUN, LATE, counted
from tests.vm.run import BY_HOOKS, EXTENTS, STEADY, plan_for
from tests.vm.table import Kernel, Userland, chosen, kernels, userlands

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ROW = Kernel("6.12", ("trixie",), "because", ("fentry", "kprobe"))
ATTACHED = {"name": "attach", "ok": True, "detail": "6 programs", "remedy": None}
RIGHT = {
    "version": "6.12.1-amd64",
    "suite": "trixie",
    "date": "2026-01-02",
    "extent": "all",
    "modes": {
        "fentry": {
            "doctor": {"ok": True, "facts": [ATTACHED]},
            "tests": {"ok": True, "passed": 5, "failed": {}, "skipped": {}},
        }
    },
}


def with_tests(**outcome: object) -> page.Results:
    tests = {"ok": False, "passed": 4, "failed": {}, "skipped": {}, **outcome}
    return {**RIGHT, "modes": {"fentry": {"tests": tests}}}


def test_every_row_says_where_to_look_and_why() -> None:
    for kernel in kernels():
        assert kernel.suites
        assert kernel.why
        assert kernel.hooks


def test_releases_are_chosen_by_name() -> None:
    assert [kernel.release for kernel in chosen(["6.12"])] == ["6.12"]
    assert chosen([]) == kernels()
    with pytest.raises(LookupError, match=r"no kernel 4\.4; there are 5\.10"):
        chosen(["4.4"])


def test_what_is_right_has_no_failures() -> None:
    assert list(page.failures(RIGHT)) == []


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ({"error": "sid: its kernel is 7.3"}, "sid: its kernel is 7.3"),
        (with_tests(failed={"test_a": "assert 1"}), "fentry: test_a: assert 1"),
        (with_tests(skipped={"test_b": "no tool"}), "fentry: test_b: no tool"),
        ({**RIGHT, "kernel": ["[1.0] WARNING: CPU: 1"]}, "kernel: [1.0] WARNING: CPU: 1"),
        (with_tests(said="exit 4: usage"), "fentry: tests: exit 4: usage"),
    ],
)
def test_every_failure_and_every_skip_is_told(results: page.Results, said: str) -> None:
    assert list(page.failures(results)) == [said]


def test_the_page_tells_of_each_kernel() -> None:
    text = page.text([(ROW, RIGHT), (ROW, None)])
    assert (
        "| 6.12 | 6.12.1-amd64 (trixie) | because | 5 passed, 0 failed (all) | 2026-01-02 |" in text
    )
    assert "| 6.12 | | because | never run | |" in text
    assert "- attach: 6 programs" in text


def test_of_a_refusal_the_page_has_the_message_and_the_remedy() -> None:
    refused = {"name": "attach", "ok": False, "detail": "no program\nlog\nlog", "remedy": "boot"}
    results = {**RIGHT, "modes": {"fentry": {"doctor": {"ok": False, "facts": [refused]}}}}
    lines = page.text([(ROW, results)]).splitlines()
    assert "- attach: no program; boot" in lines
    assert not any("log" in line for line in lines)


def test_what_a_kernel_cannot_run_is_left_out_and_told() -> None:
    row = Kernel("5.10", ("bullseye",), "old", ("fentry",), {"multipath": "no MPTCP"})
    plan = plan_for(row, EXTENTS["all"])
    assert plan == {
        "fentry": ["tests/kernel", "-k", "not under_load and not confidentiality and not multipath"]
    }
    assert "- multipath: no MPTCP" in page.text([(row, None)])


@pytest.mark.parametrize(
    ("doctor", "wrong"),
    [
        ({"ok": False, "facts": [{"name": "lockdown", "detail": "confidentiality"}]}, 0),
        ({"ok": False, "facts": [], "said": "exit 1: Traceback"}, 1),
        ({"ok": True, "facts": []}, 1),
    ],
)
def test_a_host_that_lacks_something_must_be_told_what(doctor: page.Results, wrong: int) -> None:
    results = {"refused": "confidentiality", "modes": {"fentry": {"doctor": doctor}}}
    assert len(list(page.failures(results))) == wrong


def test_another_host_has_a_name_and_tests_of_its_own() -> None:
    row = Kernel("6.12", ("trixie",), "why", ("fentry",), name="other", tests=("tests/a.py",))
    assert plan_for(row, EXTENTS["few"]) == {"fentry": ["tests/a.py"]}
    assert ROW.name == ROW.release


def test_a_kernel_that_cannot_be_had_is_on_the_page() -> None:
    missing = {"error": "trixie: not found", "date": "2026-01-02", "extent": "few"}
    assert "| **trixie: not found** |" in page.text([(ROW, missing)])


def test_packages_come_from_where_the_host_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "http://near.example/debian-security/\nhttp://near.example/debian/\n"
    answer = subprocess.CompletedProcess((), 0, stdout=said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    assert debian.mirror("debian") == "http://near.example/debian"
    answer.stdout = "http://archive.example/ubuntu/\n"
    assert debian.mirror("debian-security") == f"{debian.MIRROR}/debian-security"


def test_a_kernel_is_kept_when_the_archive_is_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "mirror", lambda archive: f"file:{tmp_path}/{archive}")
    monkeypatch.setattr(debian, "PAUSES_S", (0.0,))
    with pytest.raises(debian.KernelMissingError, match="trixie: apt-get"):
        debian.get(ROW, tmp_path)
    unpacked = tmp_path / "trixie/linux-image-6.12.1-amd64"
    (unpacked / "lib/modules/6.12.1-amd64").mkdir(parents=True)
    (unpacked / "complete").touch()
    boot = debian.get(ROW, tmp_path)
    assert (boot.version, boot.suite) == ("6.12.1-amd64", "trixie, kept")


def test_an_archive_that_does_not_answer_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def out_of_reach(command: Sequence[str], **_: object) -> None:
        asked.append(command[0])
        raise subprocess.CalledProcessError(100, command, stderr="no route")

    monkeypatch.setattr(debian, "mirror", lambda archive: f"file:{tmp_path}/{archive}")
    monkeypatch.setattr(debian, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(subprocess, "run", out_of_reach)
    with pytest.raises(debian.KernelMissingError, match="apt-get: no route"):
        debian.get(ROW, tmp_path)
    assert asked == ["apt-get"] * 3


def test_another_bcc_is_unpacked_once_and_taken_into_the_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked: list[str] = []
    monkeypatch.setattr(debian.Suite, "unpack", lambda suite, *_: unpacked.append(suite.name))
    for _ in range(2):
        made = compiler.get("bullseye", tmp_path / "cache", tmp_path)
    assert unpacked == ["bullseye"]
    script = tmp_path / "python3"
    assert f"chroot {made.root}" in script.read_text()
    boot = debian.Boot(tmp_path / "vmlinuz", "5.10", "bullseye")
    command = guest._command(boot, tmp_path, (), made)
    assert f"FOURWAVE_BCC_PYTHON={script}" in command[-1]
    assert any(word.endswith(f"={made.root}") for word in command)


@pytest.mark.parametrize(
    ("wrong", "late"),
    [
        ("the server's fin_ack is pure, but was made fin", True),
        ("the client's kind is active, but was made abort", True),
        ("the client's cause is None, but was made data_after_close", True),
        ("the client's close was not reported", True),
        ("the client's kind is reset, but was made abort", False),
        ("the client's cause is peer, but was made linger_zero", False),
        ("the client's closer is close, but was made exit", False),
    ],
)
def test_only_lateness_is_shown_again(wrong: str, late: bool) -> None:
    assert bool(LATE.search(wrong)) == late


BOOTS_AT_ONCE = f"echo {BEGUN}"
BOOTS_THE_SECOND_TIME = f"test -e booted || {{ touch booted; exit 1; }}; echo {BEGUN}"


def test_a_guest_that_does_not_boot_is_started_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told, and both consoles are kept; a third time there is not."""
    monkeypatch.setattr(guest, "ROOT", tmp_path)
    guest.watched(["sh", "-c", BOOTS_AT_ONCE], tmp_path, 10.0)
    assert capsys.readouterr().err == ""
    guest.watched(["sh", "-c", BOOTS_THE_SECOND_TIME], tmp_path, 10.0)
    assert "before it had booted" in capsys.readouterr().err
    assert (tmp_path / guest.FIRST_LOG_FILE).read_text() == ""
    assert BEGUN in (tmp_path / guest.LOG_FILE).read_text()
    with pytest.raises(guest.GuestError, match="before it had booted"):
        guest.watched(["false"], tmp_path, 10.0)


def test_a_guest_that_booted_has_one_chance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(guest.GuestError, match=r"not done after 0\.1 s"):
        guest.watched(["sh", "-c", f"{BOOTS_AT_ONCE}; sleep 60"], tmp_path, 0.1)
    assert capsys.readouterr().err == ""


def test_a_guest_that_is_stuck_on_its_way_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest, "BOOT_S", 0.1)
    with pytest.raises(guest.NotBootedError, match=r"not booted after 0\.1 s"):
        guest.watched(["sleep", "60"], tmp_path, 10.0)


def test_a_junit_file_is_counted(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite><testcase name='a'/><testcase name='b'><failure message='no'/>"
        "</testcase><testcase name='c'><skipped message='why'/></testcase></testsuite></testsuites>"
    )
    assert counted(report) == {"passed": 1, "failed": {"b": "no"}, "skipped": {"c": "why"}}
    assert counted(tmp_path / "none.xml") == {"passed": 0, "failed": {}, "skipped": {}}


@pytest.mark.parametrize("extent", EXTENTS)
def test_every_mode_has_its_tests(extent: str) -> None:
    """The first mode all of its extent, the others what a hook could change."""
    plan = plan_for(ROW, EXTENTS[extent])
    assert list(plan) == ["fentry", "kprobe"]
    assert "four_way" in plan["kprobe"][-1] or plan["kprobe"] == plan["fentry"]


@pytest.mark.parametrize("name", [*STEADY, *BY_HOOKS])
def test_what_an_extent_takes_by_name_is_there(name: str) -> None:
    """A test that is called otherwise one day must not drop out unnoticed."""
    function = name.removesuffix("-client")
    sources = [path.read_text() for path in (ROOT / "tests").glob("[kt]*/*.py")]
    assert any(re.search(rf"def \w*{function}", text) for text in sources)


def test_the_page_tells_of_each_userland() -> None:
    trixie = Userland("3.13", "Debian 13", "trixie")
    other = Userland("3.12", "between")
    assert (trixie.name, other.name) == ("trixie", "python-3.12")
    text = page.text([], [(trixie, {**RIGHT, "extent": ""}), (other, None)])
    assert "| trixie | 3.13 | Debian 13 | 6 programs | 5 passed, 0 failed | 2026-01-02 |" in text
    assert "| this host's | 3.12 | between |  | never run |  |" in text


def test_every_userland_says_why() -> None:
    assert all(row.why for row in userlands())
    assert {row.python for row in userlands()} == {"3.11", "3.12", "3.13", "3.14"}


def test_the_page_is_the_one_made_from_the_results() -> None:
    assert page.PAGE.read_text() == page.page()
