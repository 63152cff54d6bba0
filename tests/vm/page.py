# SPDX-License-Identifier: Apache-2.0
"""docs/kernels.md, made from kernels.toml, userlands.toml and the last results of each row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.vm.table import kernels, userlands

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.vm.table import Kernel, Userland

__all__ = ("failures", "keep", "page", "text", "write")

PAGE: Final = Path(__file__).resolve().parents[2] / "docs/kernels.md"
RESULTS: Final = Path(__file__).with_name("results")
MESSAGE_CHARS: Final = 300
SHOWN: Final = (
    *("attach", "ACK of the FIN", "accept()", "TIME_WAIT"),
    *("reset reasons", "interrupted programs"),
)
HEAD: Final = """\
# Kernels fourwave is tested on

Made by `make vm`, `make vm-all` and `make userlands` from tests/vm/kernels.toml, userlands.toml
and the last results; not written by hand. Each kernel is Debian's own, booted in an emulated
machine with two processors; inside, `fourwave doctor`, `fourwave demo` and tests in tests/kernel
run, the packets being the judge. A test that could not run counts as failed.

How much of the tests a row had: `ci`, every hook, a dozen kinds of close and the census, as every
change must pass it; `kinds`, every kind of close one way round and spoilt paths; `few`, what
`make vm` runs, also slow kinds, censuses, accept() and TIME_WAIT; `all`, what `make vm-all` runs.
All but the last repeat only the closes it matters to with each further way to see the ACK of the
FIN leave. A host of its own has tests of its own, whatever the extent.

"""
USERLANDS_HEAD: Final = """\
# Compilers and Pythons

A Debian suite's own BCC loads the programs into this host's kernel; the resident runs in the
suite's Python where that is new enough. tests/unit, as far as it is about Python, and some of
tests/kernel run there.
"""

Results = dict[str, Any]


def keep(release: str, results: Results) -> None:
    """Make these the last results of this kernel."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(results, indent=1).replace(str(PAGE.parents[1]), ".")  # wherever that is
    (RESULTS / f"{release}.json").write_text(text + "\n")


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
            if name != "tests" and results.get("refused"):
                yield from _not_refused(mode, name, step, results["refused"])
                continue
            bad = step.get("failed", {}) | step.get("skipped", {})
            for test, message in bad.items():
                yield f"{mode}: {test}: {message.strip()}"
            if not step["ok"] and not bad:
                said = "; ".join([*step.get("wrong", ()), step.get("said", "failed").strip()])
                yield f"{mode}: {name}: {said}"


# Where it cannot work it must say why: doctor in its facts, the others on stderr.
def _not_refused(mode: str, name: str, step: Results, why: str) -> Iterator[str]:
    if step["ok"]:
        yield f"{mode}: {name}: it worked, and should say: {why}"
    elif why not in json.dumps(step, ensure_ascii=False):
        yield f"{mode}: {name}: it does not say {why!r}: {step.get('said', '')[:MESSAGE_CHARS]}"


def write() -> None:
    """Write the page."""
    PAGE.write_text(page())


def page() -> str:
    """Return the page as the tables and the last results have it."""
    return text(
        [(kernel, last(kernel.name)) for kernel in kernels()],
        [(userland, last(userland.name)) for userland in userlands()],
    )


def text(
    rows: list[tuple[Kernel, Results | None]],
    others: list[tuple[Userland, Results | None]] | None = None,
) -> str:
    """Return the page: a table of all kernels, what each one allows, and one of userlands."""
    head = ["| kernel | Debian's version | why | tests | when |", "|---|---|---|---|---|"]
    table = [_row(kernel, results) for kernel, results in rows]
    sections = [line for kernel, results in rows for line in _section(kernel, results)]
    beyond = [*_userlands(others), ""] if others else []
    return HEAD + "\n".join([*head, *table, "", *sections, *beyond]).rstrip() + "\n"


def _userlands(rows: list[tuple[Userland, Results | None]]) -> Iterator[str]:
    yield USERLANDS_HEAD
    yield "| suite | Python | why | programs loaded by | tests | when |"
    yield "|---|---|---|---|---|---|"
    for userland, results in rows:
        yield " ".join(f"| {cell}" for cell in _cells(userland, results)) + " |"


def _cells(userland: Userland, results: Results | None) -> tuple[str, ...]:
    place = userland.suite or "this host's"
    python = userland.python if userland.resident == "suite" else f"{userland.python}, this host's"
    if results is None:
        return place, python, userland.why, "", "never run", ""
    attach = _facts(results, "attach")
    return place, python, userland.why, attach, _verdict(results), results["date"]


# "6 programs by tp_btf, BCC 0.31.0 of /usr/bin/python3, compiled now"
def _facts(results: Results, name: str) -> str:
    modes: Results = results.get("modes", {})
    steps: Results = next(iter(modes.values()), {})
    found = [fact for fact in steps.get("doctor", {}).get("facts", []) if fact["name"] == name]
    detail = " ".join(found[0]["detail"].split()) if found else ""
    return detail.partition(", compiled")[0].partition(" [")[0]


def _row(kernel: Kernel, results: Results | None) -> str:
    if results is None:
        return f"| {kernel.name} | | {kernel.why} | never run | |"
    where = f"{results.get('version', '')} ({results.get('suite', 'not found')})"
    return f"| {kernel.name} | {where} | {kernel.why} | {_verdict(results)} | {results['date']} |"


def _verdict(results: Results) -> str:
    if "error" in results:
        return f"**{results['error']}**"
    steps = [step for mode in results["modes"].values() for step in mode.values()]
    passed = sum(step.get("passed", 0) for step in steps)
    wrong = len(list(failures(results)))
    if results.get("refused") and not wrong:
        return f"says what is missing; {passed} passed" if passed else "says what is missing"
    extent = f" ({results['extent']})" if results["extent"] else ""
    return f"{passed} passed, {wrong} failed{extent}"


def _section(kernel: Kernel, results: Results | None) -> Iterator[str]:
    if kernel.without:
        yield f"## {kernel.name}: what it cannot run"
        yield ""
        yield from (f"- {name}: {why}" for name, why in kernel.without.items())
        yield ""
    for mode, steps in (results or {}).get("modes", {}).items():
        yield f"## {kernel.name}, {mode}"
        yield ""
        for fact in steps.get("doctor", {}).get("facts", []):
            if fact["name"] in SHOWN:
                yield f"- {fact['name']}: {_said(fact)}"
        if late := steps.get("demo", {}).get("late"):
            yield f"- demo: shown again, since {'; '.join(late)}"
        yield ""


# What a compiler or a verifier adds in further lines is for whoever mends it.
def _said(fact: Results) -> str:
    detail: str = fact["detail"].partition("\n")[0][:MESSAGE_CHARS]
    return detail if fact["ok"] or not fact["remedy"] else f"{detail}; {fact['remedy']}"
