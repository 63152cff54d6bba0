# SPDX-License-Identifier: Apache-2.0
"""What a C compiler has for the sizes, offsets and numbers of headers in bpf/."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np


def of_struct(name: str, dtype: np.dtype[Any]) -> Iterator[tuple[str, int]]:
    """Yield every C expression about a structure and the number its dtype has for it."""
    yield f"sizeof(struct {name})", dtype.itemsize
    for field, (kind, offset, *_) in (dtype.fields or {}).items():
        yield f"offsetof(struct {name}, {field})", offset
        yield f"sizeof(((struct {name} *)0)->{field})", kind.itemsize


def compiled(expressions: Sequence[str], headers: Sequence[Path], folder: Path) -> dict[str, int]:
    """Return the compiler's number for each expression; skips without a compiler."""
    cc = shutil.which("cc")
    if not cc:
        pytest.skip("no C compiler (cc)")
    lines = "".join(f'printf("%lld\\n", (long long)({c}));\n' for c in expressions)
    includes = "".join(f'#include "{header}"\n' for header in headers)
    source = folder / "layout.c"
    source.write_text(
        f"#include <stddef.h>\n#include <stdio.h>\n{includes}"
        f"int main(void) {{\n{lines}return 0;\n}}\n"
    )
    subprocess.run([cc, "-o", folder / "layout", source], check=True, timeout=60)
    out = subprocess.run([folder / "layout"], check=True, capture_output=True, timeout=10)
    return dict(zip(expressions, map(int, out.stdout.split()), strict=True))
