# SPDX-License-Identifier: Apache-2.0
"""Privilege that was given up is gone; what is needed is found out, not assumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import skip_or_fail
from tracer import privileges
from tracer.errors import HostError, UsageError

CHILD = """
import json, os, sys
from tracer import privileges as p
p.drop(p.account(None), p.names(p.CENSUS))
tried = []
def trial():
    tried.append(sorted(p._names(p._status_mask("CapEff"))))
    if len(tried) < int(sys.argv[1]):
        raise PermissionError(1, "not yet")
kept = p.settle(trial, p.CENSUS)
back = []
for attempt in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.chroot("/")):
    try:
        attempt()
        back.append(True)
    except PermissionError:
        back.append(False)
print(json.dumps({"kept": kept, "tried": tried, "held": sorted(p.held()), "back": back,
    "ids": [*os.getresuid(), *os.getresgid(), *os.getgroups()],
    "bounding": p._status_mask("CapBnd"), "ambient": p._status_mask("CapAmb")}))
"""


def dropped(rungs: int) -> dict[str, Any]:
    """Give privilege up in a child in which the trial succeeds at the rung of that number."""
    if os.geteuid() != 0:
        skip_or_fail("only root has something to give up")
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(rungs)], capture_output=True, check=True, text=True
    )
    told: dict[str, Any] = json.loads(child.stdout)
    return told


def test_the_first_rung_that_works_is_kept() -> None:
    told = dropped(1)
    assert told["kept"] == list(privileges.NAMESPACES)
    assert told["held"] == sorted(privileges.NAMESPACES)
    assert told["bounding"] == told["ambient"] == 0
    assert 0 not in told["ids"]
    assert told["back"] == [False, False, False]


def test_a_rung_that_fails_leads_to_the_next() -> None:
    told = dropped(3)
    assert [len(effective) for effective in told["tried"]] == [3, 5, 0]
    assert told["held"] == []


def test_when_no_rung_works_it_is_told() -> None:
    """No rung is tried that is not held: an empty ladder is one that nobody can climb."""
    with pytest.raises(HostError, match="--user root"):
        privileges.settle(lambda: None, ())


def test_only_root_becomes_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert privileges.account(None) is None
    with pytest.raises(UsageError, match="only root"):
        privileges.account("nobody")


def test_a_user_that_does_not_exist_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UsageError, match="nosuchuser"):
        privileges.account("nosuchuser")
