# SPDX-License-Identifier: Apache-2.0
"""The programs compile against the types of every kernel that is kept here, not of this one alone.

What they do there only a guest shows (tests/vm); a member or a fallback that is missing shows here.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.data.btf.blobs import BLOBS
from tests.pace import allowed_s
from tracer.kernel.launch import python_candidates

pytestmark = pytest.mark.kernel

SCRIPT = Path(__file__).with_name("compiling.py")


@pytest.mark.parametrize("kernel", BLOBS)
def test_the_programs_compile_for(kernel: str) -> None:
    """With BCC's own compiler."""
    done = subprocess.run(
        [python_candidates()[0], "-I", SCRIPT, BLOBS[kernel]],
        capture_output=True,
        text=True,
        timeout=allowed_s(60.0),
        check=False,
    )
    assert done.returncode == 0, done.stderr
