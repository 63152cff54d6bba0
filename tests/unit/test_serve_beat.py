# SPDX-License-Identifier: Apache-2.0
"""What the web process is given: samples when there are new ones, else signs of life."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit import builders as b
from tracer.batch import Batch, BatchKind
from tracer.serve import Beat
from tracer.session import Session


class Web:
    """Notes what it is given."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def show(self, samples: bytes) -> None:
        """Note samples."""
        self.given.append(samples.decode())

    def show_again(self) -> None:
        """Note a sign of life."""
        self.given.append("same")


class Composer:
    """Samples that say what they were made of."""

    present = "none"

    def samples(self, _snapshot: object, totals: dict[str, Any]) -> SimpleNamespace:
        """Return something with to_json()."""
        text = f"{totals['closes']} closes, census {self.present}"
        return SimpleNamespace(to_json=text.encode)


@pytest.fixture
def beat() -> tuple[Beat, Composer, Web]:
    """Give one, and what it speaks to."""
    composer, web = Composer(), Web()
    made = Beat(Session(b.HOST), composer, web)  # type: ignore[arg-type]
    return made, composer, web


def counters(closes: int) -> Batch:
    """Return totals that say so."""
    return Batch(BatchKind.COUNTERS, 0, json.dumps({"closes": closes}).encode())


def test_totals_that_are_as_before_are_a_sign_of_life(beat: tuple[Beat, Composer, Web]) -> None:
    made, _, web = beat
    for closes in (0, 0, 3, 3):
        made.feed(counters(closes))
    expected = ["0 closes, census none", "same", "3 closes, census none", "same"]
    assert web.given == expected


def test_a_census_is_shown_when_it_comes(beat: tuple[Beat, Composer, Web]) -> None:
    """Beside the totals there are: on an idle host the next ones may take a while."""
    made, composer, web = beat
    made.feed(counters(3))
    composer.present = "new"
    made.show()
    assert web.given[-1] == "3 closes, census new"
