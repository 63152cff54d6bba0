# SPDX-License-Identifier: Apache-2.0
"""kernels.toml and userlands.toml: which kernels and userlands there are to test on, and why."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ("Kernel", "Plan", "Userland", "chosen", "kernels", "userlands")

TABLE = Path(__file__).with_name("kernels.toml")
USERLANDS = Path(__file__).with_name("userlands.toml")


Plan: TypeAlias = dict[str, list[str]]
"""Pytest's arguments by mode: how the ACK of the FIN may be seen."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One row: the release's first two numbers, Debian suites to look in, the modes to run.

    `without` says why each of some tests is not for this kernel. A row with `append`, more words
    for the kernel's command line, is another host with the same kernel: it has a `name` and
    `tests` of its own. `refused`: part of what fourwave must say there instead of working.
    `architecture`: Debian's name of it; a foreign one is a userland of its own, too. `bcc`: the
    suite whose BCC loads the programs, when it is not this host's.
    """

    release: str
    suites: tuple[str, ...]
    why: str
    hooks: tuple[str, ...]
    without: dict[str, str] = field(default_factory=dict)
    name: str = ""
    append: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    refused: str = ""
    architecture: str = "amd64"
    bcc: str = ""

    def __post_init__(self) -> None:
        """Name it after its release, unless it is another host."""
        object.__setattr__(self, "name", self.name or self.release)


@dataclass(frozen=True, slots=True)
class Userland:
    """One row: a Debian suite for its BCC (None: this host's), and the resident's Python.

    `resident`: "host" where the suite's own Python is too old for it. `refused`: part of what
    fourwave must say there instead of working.
    """

    python: str
    why: str
    suite: str | None = None
    resident: str = "suite"
    refused: str = ""

    @property
    def name(self) -> str:
        """What it is called on the command line and in results/."""
        return self.suite or f"python-{self.python}"


def userlands(table: Path = USERLANDS) -> list[Userland]:
    """Return every row, in the order of the table."""
    return [Userland(**row) for row in tomllib.loads(table.read_text())["userland"]]


def kernels(table: Path = TABLE) -> list[Kernel]:
    """Return every row, oldest kernel first."""
    rows = tomllib.loads(table.read_text())["kernel"]
    return [Kernel(**{key: _frozen(value) for key, value in row.items()}) for row in rows]


def _frozen(value: object) -> Any:
    return tuple(value) if isinstance(value, list) else value


def chosen(names: Iterable[str]) -> list[Kernel]:
    """Return the rows of these names, all when none is named. Raises LookupError."""
    table = {kernel.name: kernel for kernel in kernels()}
    wanted = list(names) or list(table)
    unknown = [name for name in wanted if name not in table]
    if unknown:
        raise LookupError(f"no kernel {', '.join(unknown)}; there are {', '.join(table)}")
    return [table[name] for name in wanted]
