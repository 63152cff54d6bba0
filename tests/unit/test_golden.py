# SPDX-License-Identifier: Apache-2.0
"""Every golden recording is read as it was when it was made, and as its scenario means it.

When it is right that they are read otherwise: `make golden ARGS=--judge-only`. When the wire
format changed: `make golden` (root).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.golden.replay import FOLDER, SUFFIX, load_expected, path_of, replayed
from tests.truth.mixed import SCENARIOS

if TYPE_CHECKING:
    from tests.truth.scenario import Expect

FOLDER_BYTES_MAX = 200_000
GOLDEN = load_expected()


def test_every_scenario_has_one() -> None:
    assert {path.stem for path in FOLDER.glob(f"*{SUFFIX}")} == set(SCENARIOS) == set(GOLDEN)


def test_they_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < FOLDER_BYTES_MAX


@pytest.mark.parametrize("name", GOLDEN)
def test_is_read_as_when_it_was_made(name: str) -> None:
    assert replayed(path_of(name)) == GOLDEN[name]


@pytest.mark.parametrize("name", GOLDEN)
def test_is_what_the_scenario_means(name: str) -> None:
    client, server = SCENARIOS[name].expected(server_first=False)
    by_opener = {"active": [client], "passive": [server]}
    if name == "simultaneous_open":
        by_opener["active"] = [client, server]
    for close in GOLDEN[name]:
        meant = by_opener[close["opened"]]
        assert any(one is not None and meets(close, one) for one in meant), close


def meets(close: dict[str, Any], meant: Expect) -> bool:
    """Whether a close is what was meant; timing may have made three segments of four."""
    names = ("cause", "how", "time_wait")
    wanted = {name: getattr(meant, name) for name in names if getattr(meant, name) is not None}
    return close["kind"] == meant.kind and wanted.items() <= close.items()
