# SPDX-License-Identifier: Apache-2.0
"""Origins as C lays them out: every size, offset and number."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tracer.kernel.origins import FRAMES_MAX, LOSSES, ORIGIN, STACK_TOP_WORDS
from tracer.origins import How

if TYPE_CHECKING:
    from collections.abc import Iterator

BPF: Final = Path(__file__).parents[2] / "bpf"


def expressions() -> Iterator[tuple[str, int]]:
    """Yield every C expression and the number Python has for it."""
    yield "sizeof(struct origin)", ORIGIN.itemsize
    for field, (kind, offset, *_) in (ORIGIN.fields or {}).items():
        yield f"offsetof(struct origin, {field})", offset
        yield f"sizeof(((struct origin *)0)->{field})", kind.itemsize
    for how in How:
        yield f"ORIGIN_{how.name}", int(how)
    yield "USER_FRAMES_MAX", FRAMES_MAX
    yield "STACK_TOP_WORDS", STACK_TOP_WORDS
    yield "ORIGIN_LOSSES", LOSSES


def test_layout_is_the_compilers(tmp_path: Path) -> None:
    cc = shutil.which("cc")
    if not cc:
        pytest.skip("no C compiler (cc)")
    lines = "".join(f'printf("%lld\\n", (long long)({c}));\n' for c, _ in expressions())
    includes = "".join(f'#include "{BPF / name}"\n' for name in ("records.h", "origins.h"))
    source = tmp_path / "layout.c"
    source.write_text(
        f"#include <stddef.h>\n#include <stdio.h>\n{includes}int main(void) {{\n{lines}}}\n"
    )
    subprocess.run([cc, "-o", tmp_path / "layout", source], check=True, timeout=60)
    out = subprocess.run([tmp_path / "layout"], check=True, capture_output=True, timeout=10)
    names = [c for c, _ in expressions()]
    assert dict(zip(names, map(int, out.stdout.split()), strict=True)) == dict(expressions())
