# SPDX-License-Identifier: Apache-2.0
"""What holds for the files of the project as such."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())

FOLDERS: Final = ("tracer", "bpf", "dashboards", "tests", "packaging", ".ci", "docs")
SUFFIXES: Final = ("", ".py", ".c", ".h", ".sh", ".toml", ".md")
TOP: Final = ("Makefile", "pyproject.toml", "README.md", "CHANGELOG.md")

MODULE_LINES: Final = 350
FUNCTION_LINES: Final = 60

# Words that put work off, and paths that are there on one machine only.
UNWANTED: Final = {
    "put off": r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK)\b",
    "somebody's home": r"/(home|Users)/\w+/",
}


def sources(*suffixes: str) -> list[Path]:
    """Return the files of the project, links and caches left out."""
    found = [ROOT / name for name in TOP]
    for folder in FOLDERS:
        found += [path for path in sorted((ROOT / folder).rglob("*")) if path.is_file()]
    return [
        path
        for path in found
        if path.suffix in (suffixes or SUFFIXES)
        and not any(part.endswith(("cache", "cache__", "_bpf")) for part in path.parts)
        and is_text(path)
    ]


def is_text(path: Path) -> bool:
    """Return whether a file reads as UTF-8 text (the benchmark's binary does not)."""
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def licence_of(path: Path) -> str:
    """Return what a file of this place is licensed under."""
    return "GPL-2.0" if path.is_relative_to(ROOT / "bpf") else "Apache-2.0"


@pytest.mark.parametrize("path", sources(".py", ".c", ".h", ".sh", ""), ids=relative)
def test_says_its_licence_first(path: Path) -> None:
    """The licence is the first line, or the second after a `#!`."""
    head = "\n".join(path.read_text().splitlines()[:2])
    assert re.search(rf"SPDX-License-Identifier: {licence_of(path)}(-only)?\b", head)


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_has_nothing_unwanted(path: Path) -> None:
    text = path.read_text()
    assert {why for why, pattern in UNWANTED.items() if re.search(pattern, text)} == set()


def test_modules_stay_short() -> None:
    """A module fits in the head."""
    modules = [path for path in sources(".py") if path.is_relative_to(ROOT / "tracer")]
    lines = {relative(path): len(path.read_text().splitlines()) for path in modules}
    assert {name: count for name, count in lines.items() if count > MODULE_LINES} == {}


def test_programs_ask_for_capabilities_not_versions() -> None:
    """Distributions backport: a version number tells nothing about what a kernel can do."""
    programs = [path for path in sources(".c", ".h") if path.is_relative_to(ROOT / "bpf")]
    by_version = re.compile(r"LINUX_VERSION_CODE|KERNEL_VERSION\(")
    assert {relative(path) for path in programs if by_version.search(path.read_text())} == set()


@pytest.mark.parametrize("path", sources(".py"), ids=relative)
def test_functions_stay_short(path: Path) -> None:
    """A function fits on a screen."""
    text = path.read_text()
    functions = (
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    long = {f.name for f in functions if (f.end_lineno or 0) - f.lineno >= FUNCTION_LINES}
    assert long == set()


def test_bcc_is_no_dependency() -> None:
    """PyPI's `bcc` is a crystal lattice library: nobody may be led to it."""
    groups = [*PROJECT["dependency-groups"].values(), PROJECT["project"]["dependencies"]]
    names = {
        re.split(r"[^A-Za-z0-9_-]", requirement)[0] for group in groups for requirement in group
    }
    assert names & {"bcc", "pybcc", "bpfcc"} == set()


def test_both_licences_are_here_in_full() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0 AND GPL-2.0-only"
    assert "Apache License" in (ROOT / "LICENSES/Apache-2.0.txt").read_text()
    assert "GNU GENERAL PUBLIC LICENSE" in (ROOT / "LICENSES/GPL-2.0-only.txt").read_text()


def test_the_bpf_programs_are_package_data() -> None:
    """What a wheel takes from the package is the very folder of the checkout."""
    assert (ROOT / "tracer/_bpf").resolve() == ROOT / "bpf"


def test_the_changelog_knows_the_version() -> None:
    version = re.escape(PROJECT["project"]["version"])
    assert re.search(
        rf"^## \[({version}|Unreleased)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )


def test_every_make_target_is_explained() -> None:
    """`make help` lists what a person would type; `setup*` is called by the others."""
    text = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"[a-z-]+", re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0]))
    explained = set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
    assert phony - explained == {"setup", "setup-test", "setup-bench", "setup-vm"}
