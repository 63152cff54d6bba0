# SPDX-License-Identifier: Apache-2.0
"""kernels.toml: which kernels there are to test on, and why."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ("Kernel", "chosen", "kernels")

TABLE = Path(__file__).with_name("kernels.toml")


@dataclass(frozen=True, slots=True)
class Kernel:
    """One row: the release's first two numbers, Debian suites to look in, the modes to run.

    `without` says why each of some tests is not for this kernel.
    """

    release: str
    suites: tuple[str, ...]
    why: str
    hooks: tuple[str, ...]
    without: dict[str, str] = field(default_factory=dict)


def kernels(table: Path = TABLE) -> list[Kernel]:
    """Return every row, oldest kernel first."""
    rows = tomllib.loads(table.read_text())["kernel"]
    return [
        Kernel(
            row["release"],
            tuple(row["suites"]),
            row["why"],
            tuple(row["hooks"]),
            row.get("without", {}),
        )
        for row in rows
    ]


def chosen(releases: Iterable[str]) -> list[Kernel]:
    """Return the rows of these releases, all when none is named. Raises LookupError."""
    table = {kernel.release: kernel for kernel in kernels()}
    wanted = list(releases) or list(table)
    unknown = [release for release in wanted if release not in table]
    if unknown:
        raise LookupError(f"no kernel {', '.join(unknown)}; there are {', '.join(table)}")
    return [table[release] for release in wanted]
