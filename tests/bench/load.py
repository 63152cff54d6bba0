# SPDX-License-Identifier: Apache-2.0
"""The load generator closes.c: built once, run in a network namespace of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE: Final = Path(__file__).with_name("closes.c")
PROGRAM: Final = SOURCE.with_suffix("")


def build() -> None:
    """Compile the generator unless the binary is newer than its source."""
    if PROGRAM.exists() and PROGRAM.stat().st_mtime > SOURCE.stat().st_mtime:
        return
    subprocess.run(["cc", "-O2", "-pthread", "-o", PROGRAM, SOURCE], check=True)


def run(*options: str, timeout_seconds: float = 300, prefix: Sequence[str] = ()) -> dict[str, Any]:
    """Run it, behind `prefix`, and return what it prints; every connection has ended by then."""
    done = subprocess.run(
        [*prefix, PROGRAM, *options],
        check=True,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
    )
    return dict(json.loads(done.stdout))
