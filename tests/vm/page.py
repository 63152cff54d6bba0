# SPDX-License-Identifier: Apache-2.0
"""docs/kernels.md, made from kernels.toml and the last results of each kernel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.vm.table import kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.vm.table import Kernel

__all__ = ("failures", "keep", "text", "write")

PAGE: Final = Path(__file__).resolve().parents[2] / "docs/kernels.md"
RESULTS: Final = Path(__file__).with_name("results")
MESSAGE_CHARS: Final = 300
SHOWN: Final = ("attach", "ACK of the FIN", "reset reasons", "interrupted programs")
HEAD: Final = """\
# Kernels fourwave is tested on

Made by `make vm` and `make vm-all` from tests/vm/kernels.toml and the last results; not written
by hand. Each kernel is Debian's own, booted in an emulated machine with two processors; inside,
`fourwave doctor`, `fourwave demo` and the tests in tests/kernel run, the packets being the judge.
A test that could not run counts as failed.

"""

Results = dict[str, Any]


def keep(release: str, results: Results) -> None:
    """Make these the last results of this kernel."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{release}.json").write_text(json.dumps(results, indent=1) + "\n")


def last(release: str) -> Results | None:
    """Return the last results of this kernel, if there are any."""
    path = RESULTS / f"{release}.json"
    return json.loads(path.read_text()) if path.exists() else None


def failures(results: Results) -> Iterator[str]:
    """Yield what was wrong, a line for each."""
    if "error" in results:
        yield results["error"]
    yield from (f"kernel: {line}" for line in results.get("kernel", []))
    for mode, steps in results.get("modes", {}).items():
        for name, step in steps.items():
            bad = step.get("failed", {}) | step.get("skipped", {})
            for test, message in bad.items():
                yield f"{mode}: {test}: {message.strip()[:MESSAGE_CHARS]}"
            if not step["ok"] and not bad:
                yield f"{mode}: {name}: {step.get('said', 'failed').strip()}"


def write() -> None:
    """Write the page."""
    PAGE.write_text(text([(kernel, last(kernel.release)) for kernel in kernels()]))


def text(rows: list[tuple[Kernel, Results | None]]) -> str:
    """Return the page: a table of all kernels, then what each one allows."""
    head = ["| kernel | Debian's version | why | tests | when |", "|---|---|---|---|---|"]
    table = [_row(kernel, results) for kernel, results in rows]
    sections = [line for kernel, results in rows for line in _section(kernel, results)]
    return HEAD + "\n".join([*head, *table, "", *sections]).rstrip() + "\n"


def _row(kernel: Kernel, results: Results | None) -> str:
    if results is None:
        return f"| {kernel.release} | | {kernel.why} | never run | |"
    where = f"{results.get('version', '')} ({results.get('suite', 'not found')})"
    return (
        f"| {kernel.release} | {where} | {kernel.why} | {_verdict(results)} | {results['date']} |"
    )


def _verdict(results: Results) -> str:
    if "error" in results:
        return f"**{results['error']}**"
    steps = [step for mode in results["modes"].values() for step in mode.values()]
    passed = sum(step.get("passed", 0) for step in steps)
    wrong = len(list(failures(results)))
    extent = "all" if results["everything"] else "a part"
    return f"{passed} passed, {wrong} failed ({extent})"


def _section(kernel: Kernel, results: Results | None) -> Iterator[str]:
    if kernel.without:
        yield f"## {kernel.release}: what it cannot run"
        yield ""
        yield from (f"- {name}: {why}" for name, why in kernel.without.items())
        yield ""
    for mode, steps in (results or {}).get("modes", {}).items():
        yield f"## {kernel.release}, {mode}"
        yield ""
        for fact in steps.get("doctor", {}).get("facts", []):
            if fact["name"] in SHOWN:
                yield f"- {fact['name']}: {' '.join(fact['detail'].split())}"
        yield ""
