# SPDX-License-Identifier: Apache-2.0
"""Read the recorded censuses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tracer.recording import RecordingSource
from tracer.wire_census import decode_census

if TYPE_CHECKING:
    from tracer.census import Census

RECORDED: Final = Path(__file__).with_name("looks.recording")
OLDER_MS: Final = 2_000
"""As long as the sockets of a scene are left alone before they are looked at."""


class Looks(NamedTuple):
    """Several censuses of the same namespaces, in the order of time; `scenes`: netns by name."""

    censuses: list[Census]
    scenes: dict[str, int]


def recorded() -> Looks:
    """Return them all."""
    with RecordingSource(str(RECORDED)) as source:
        censuses = [decode_census(batch.data) for batch in source]
        assert source.damage is None
        return Looks(censuses, source.header["scenes"])
