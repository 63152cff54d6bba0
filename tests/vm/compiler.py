# SPDX-License-Identifier: Apache-2.0
"""Another Debian suite's BCC for a guest: packages unpacked in a folder, its Python a script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tests.vm.debian import Suite
from tests.vm.userland import ROOT, script_for

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ("Compiler", "get")

PACKAGES: Final = ("python3", "python3-bpfcc")
MOUNTED: Final = ("proc", "sys", "dev", "tmp", "run")


class Compiler(NamedTuple):
    """Where it lies, and what makes fourwave load its programs with it."""

    root: Path
    variables: dict[str, str]


def get(suite: str, cache: Path, folder: Path) -> Compiler:
    """Return this suite's, unpacked when it is not there; the script goes to the folder.

    Raises KernelMissingError.
    """
    root, stamp = cache / suite / "root", cache / suite / "complete"
    if not stamp.exists():
        for name in MOUNTED:
            (root / name).mkdir(parents=True, exist_ok=True)
        Suite(suite, cache / suite).unpack(PACKAGES, root)
        stamp.touch()
    script = script_for(root, [ROOT, folder], folder)
    return Compiler(root, {"FOURWAVE_BCC_PYTHON": str(script)})
