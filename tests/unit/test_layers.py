# SPDX-License-Identifier: Apache-2.0
"""Imports go one way, from the command line down to the facts; the table below is the design."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "tracer"

FACTS: Final = ("batch", "census", "errors", "origins", "tcp")
JUDGE: Final = ("actors", "columns", "verdict", "wire", "classify")
COUNT: Final = ("spans", "tally", "samples")
PURE: Final = (*FACTS, *JUDGE, "why", "close", "metrics", "filters", "waiting", "amend", *COUNT)
EDGES: Final = ("recording", "kernel", "outputs")

# What a module, or all modules of a subpackage, may import of ours. A subpackage may
# import itself, and so may a family of modules like classify_*.py. A module that is
# not here has no place yet: give it one.
MAY_IMPORT: Final[dict[str, tuple[str, ...]]] = {
    "__init__": (),
    # facts: import nothing of ours
    "batch": (),
    "census": (),
    "errors": (),
    "origins": (),
    "tcp": (),
    # bytes to verdicts: pure
    "actors": FACTS,
    "columns": (),
    "wire": FACTS,
    "metrics": FACTS,
    "verdict": FACTS,
    "classify": (*FACTS, "actors", "columns", "verdict", "wire"),
    "why": (*FACTS, "verdict"),
    "close": (*FACTS, *JUDGE, "why"),
    "waiting": ("columns", "wire"),
    "amend": (*FACTS, "columns", "waiting", "wire"),
    "filters": (*FACTS, *JUDGE),
    # verdicts to counts
    "spans": (*FACTS, *JUDGE),
    "tally": (*FACTS, *JUDGE, "metrics", "spans"),
    "samples": (*FACTS, "metrics"),
    "detectors": (*PURE, "census"),
    "aggregator": (*PURE, "detectors", "tally"),
    # the edges: a kernel, a file, a screen
    "kernel": (*FACTS, "privileges", "confinement"),
    "recording": FACTS,
    "outputs": (*PURE, "census", "aggregator", "detectors"),
    # the loop, and what drives it
    "session": (*PURE, "aggregator", *EDGES),
    "runs": (*PURE, "census", "aggregator", "detectors", *EDGES, "session", "memory"),
    "demo": (*PURE, "aggregator", *EDGES, "session", "runs"),
    "explain": (*PURE, "aggregator", *EDGES, "session", "runs"),
    "privileges": ("errors",),
    "memory": (),
    "confinement": (),
    "serve": (
        *PURE,
        "detectors",
        "aggregator",
        *EDGES,
        "session",
        "runs",
        "privileges",
        "memory",
        "exits",
        "__init__",
    ),
    # another process: it shows samples, and reaches neither kernel nor session
    "web": ("errors", "metrics", "samples", "outputs", "privileges", "memory", "confinement"),
    "exits": ("errors", "runs"),
    "cli": (*FACTS, "exits", "runs", "demo", "explain", "serve", "__init__"),
    "__main__": ("cli",),
}

# What a pure module may not touch: the world, and the time in it.
IMPURE: Final = {"os", "pathlib", "select", "socket", "subprocess", "sys", "threading", "time"}

# Third-party modules that only some may import.
ONLY_IN: Final = {
    "bcc": ("kernel.load",),
    "pyroute2": ("kernel.sock_diag",),
    "elftools": ("kernel.elf_frames", "kernel.elf_symbols"),
    "prometheus_client": ("outputs.exporter",),
    "click": ("cli",),
    "tornado": ("web",),
    "yaml": ("web",),
    "bcrypt": ("web",),
    "landlockpy": ("confinement",),
}

# The program that the distribution's own Python runs.
LOADER: Final = "kernel.load"


def modules() -> dict[str, Path]:
    """Name each module by its dotted path below the package."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def imports(path: Path) -> Iterator[str]:
    """Yield the full dotted name of everything a file imports, wherever it does."""
    here = ("tracer", *path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: -node.level] if node.level else ()
            start = ".".join((*base, *filter(None, [node.module])))
            yield from (f"{start}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    """Return our modules that a file imports, by their names below the package."""
    known = set(modules())
    found = set()
    for name in imports(path):
        if name.split(".")[0] != "tracer":
            continue
        parts = name.split(".")[1:]
        while parts and not {".".join(parts), ".".join([*parts, "__init__"])} & known:
            parts.pop()
        if parts:
            found.add(".".join(parts))
    return found


def third_party(path: Path) -> set[str]:
    """Return the top-level names that are neither ours nor Python's."""
    top = {name.split(".")[0] for name in imports(path)}
    return {name for name in top if name not in sys.stdlib_module_names} - {"tracer", "tests"}


# cli.py and cli_options.py are one place, and so on.
def place(module: str) -> str:
    top = module.split(".", maxsplit=1)[0]
    family = top.split("_", maxsplit=1)[0]
    return family if family in MAY_IMPORT else top


@pytest.mark.parametrize("module", modules())
def test_imports_follow_the_table(module: str) -> None:
    """A module imports only what its row allows."""
    row = place(module)
    assert row in MAY_IMPORT, f"tracer/{module} has no row in {Path(__file__).name}"
    allowed = {*MAY_IMPORT[row], row}
    assert {name for name in ours(modules()[module]) if place(name) not in allowed} == set()


@pytest.mark.parametrize("module", modules())
def test_third_party_stays_in_its_place(module: str) -> None:
    """Only the loader imports bcc, only the exporter Prometheus, only the command line click."""
    forbidden = {
        name
        for name, places in ONLY_IN.items()
        if module not in places and place(module) not in places
    }
    assert third_party(modules()[module]) & forbidden == set()


@pytest.mark.parametrize("module", [name for name in modules() if place(name) in PURE])
def test_what_judges_is_pure(module: str) -> None:
    """A recording is judged alike anywhere, at any time: no I/O, no clock."""
    top = {name.split(".", maxsplit=1)[0] for name in imports(modules()[module])}
    assert top & IMPURE == set()


def test_the_loader_is_imported_by_nobody() -> None:
    """The loader is a program of its own: bcc never comes into the resident."""
    importers = {name for name, path in modules().items() if LOADER in ours(path)}
    assert importers == set()


def test_the_loader_runs_without_our_dependencies() -> None:
    """The distribution's Python has bcc and nothing else of ours: no numpy, no click."""
    if LOADER not in modules():
        pytest.skip("no loader yet")
    reached, todo = set(), {LOADER}
    while todo:
        module = todo.pop()
        reached.add(module)
        todo |= ours(modules()[module]) - reached
    found = set().union(*(third_party(modules()[module]) for module in reached))
    assert found <= {"bcc"}


def test_only_the_table_is_the_table() -> None:
    """No row is about facts importing upwards: rows name rows, and facts name nothing."""
    named = {name for row in MAY_IMPORT.values() for name in row}
    assert named <= set(MAY_IMPORT)
    assert all(MAY_IMPORT[fact] == () for fact in FACTS)
