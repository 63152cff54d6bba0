# SPDX-License-Identifier: Apache-2.0
"""Origins as C lays them out: every size, offset and number."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.unit import c_layout
from tracer.kernel.origins import FRAMES_MAX, LOSSES, ORIGIN, STACK_TOP_WORDS
from tracer.origins import How

if TYPE_CHECKING:
    from collections.abc import Iterator

BPF: Final = Path(__file__).parents[2] / "bpf"


def expressions() -> Iterator[tuple[str, int]]:
    """Yield every C expression and the number Python has for it."""
    yield from c_layout.of_struct("origin", ORIGIN)
    for how in How:
        yield f"ORIGIN_{how.name}", int(how)
    yield "USER_FRAMES_MAX", FRAMES_MAX
    yield "STACK_TOP_WORDS", STACK_TOP_WORDS
    yield "ORIGIN_LOSSES", LOSSES


def test_layout_is_the_compilers(tmp_path: Path) -> None:
    headers = [BPF / "records.h", BPF / "origins.h"]
    expected = dict(expressions())
    assert c_layout.compiled(list(expected), headers, tmp_path) == expected
