# SPDX-License-Identifier: Apache-2.0
"""The kernels whose types are kept here, cut by make.py beside this file.

Debian's generic ones: 5.10 (bullseye), 6.1 (bookworm), 6.12 (trixie, two machines), 7.2 (sid);
and a 6.18 of another configuration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

BLOBS: Final = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.btf"))}
