# SPDX-License-Identifier: Apache-2.0
"""What a recording says, through the same session that a live run goes through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracer.close import to_json
from tracer.recording import RecordingSource
from tracer.runs import host_facts
from tracer.session import Session

if TYPE_CHECKING:
    from tracer.close import Close

FOLDER = Path(__file__).parent
EXPECTED = FOLDER / "expected.json"
SUFFIX = ".recording"
# Not addresses and not times, but for those in the sentence.
KEPT = (
    *("opened", "kind", "handshake", "fin_ack", "evidence", "cause", "rst_reason", "err"),
    *("time_wait", "tx_bytes", "rx_bytes", "unread_bytes", "delayed_ack", "why"),
)

Golden = list[dict[str, Any]]


class Collected:
    """A view that keeps what it is shown."""

    def __init__(self) -> None:
        self.all: list[Close] = []

    def closes(self, closes: list[Close]) -> None:
        """Keep these."""
        self.all += closes


def path_of(name: str) -> Path:
    """Return where the recording of a scenario lies."""
    return FOLDER / f"{name}{SUFFIX}"


def replayed(path: Path) -> Golden:
    """Return what every close of a recording is read as, in order."""
    view = Collected()
    with RecordingSource(str(path)) as source:
        run = Session(host_facts(source), view=view)
        for batch in source:
            run.feed(batch)
        run.finish()
        assert source.damage is None, f"{path} is damaged {source.damage}"
    in_order = sorted(view.all, key=lambda close: close.at)
    return [_kept(json.loads(to_json(close))) for close in in_order]


def _kept(close: dict[str, Any]) -> dict[str, Any]:
    closer = close["closer"]
    return {name: close[name] for name in KEPT} | {"how": closer and closer["how"]}


def load_expected() -> dict[str, Golden]:
    """Return what every recording was read as when it was made."""
    expected: dict[str, Golden] = json.loads(EXPECTED.read_text())
    return expected


def write_expected() -> None:
    """Take what the recordings are read as now for right."""
    golden = {path.stem: replayed(path) for path in sorted(FOLDER.glob(f"*{SUFFIX}"))}
    EXPECTED.write_text("{\n" + ",\n".join(map(_entry, golden.items())) + "\n}\n")


def _entry(item: tuple[str, Golden]) -> str:
    name, closes = item
    lines = ",\n".join(f"  {json.dumps(close, ensure_ascii=False)}" for close in closes)
    return f' "{name}": [\n{lines}\n ]'
