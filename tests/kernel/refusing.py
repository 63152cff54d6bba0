# SPDX-License-Identifier: Apache-2.0
"""A kernel that refuses one program: the loader gives it that one without its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracer.kernel.launch import python_candidates

if TYPE_CHECKING:
    import pytest

ROOT: Final = Path(__file__).parents[2]
LOADER: Final = """\
import os, sys
sys.path.insert(0, {root!r})
from tracer.kernel import bpf, load
whole = bpf.load_tracing
def spoilt(name, code, btf_id):
    return whole(name, code[:-8] if name == {program!r} else code, btf_id)
bpf.load_tracing = spoilt
load.shorten_kallsyms()
os._exit(load.main(sys.argv))
"""
# What would run `python -I load.py CHANNEL OPTIONS` runs the other loader.
PYTHON: Final = """\
#!/bin/sh
shift 2
exec {python} -I {loader} "$@"
"""


def refuse(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every fourwave that is started from now on loaded without this program."""
    loader, python = folder / "loader.py", folder / "python"
    loader.write_text(LOADER.format(root=str(ROOT), program=program))
    python.write_text(PYTHON.format(python=python_candidates()[0], loader=loader))
    python.chmod(0o755)
    monkeypatch.setenv("FOURWAVE_BCC_PYTHON", str(python))
