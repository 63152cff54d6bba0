# SPDX-License-Identifier: Apache-2.0
"""In a guest or another userland: fourwave's commands and the kernel tests, in each mode asked for.

Usage: inside.py FOLDER, where plan.json has pytest's arguments by mode (a kernel's command line
would be too short for it). results.json there is written after every step, and says `complete`
at the end.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
FOURWAVE: Final = (sys.executable, "-m", "tracer")
DEMO_TRIES: Final = 10
# A delayed ACK that left before the FIN or the data was there that it was to wait for (data then
# finds a mini-socket, and ends nothing); and what came after the demonstration's time.
LATE: Final = re.compile(
    r"'s (handshake|fin_ack) is|is active, but was made abort|but was made data_after_close"
    r"|did not come to its end|was not reported"
)
PLAN_FILE: Final = "plan.json"
BEGUN: Final = "== begun"
STEP_S: Final = 2400.0
TAIL_CHARS: Final = 2000
ENVIRONMENT: Final = {"FOURWAVE_KERNEL_TESTS": "1"}

Step = dict[str, Any]


def main(argv: list[str]) -> int:
    """Run everything; 0 also when a test failed, which the results say."""
    print(BEGUN, flush=True)
    folder = Path(argv[1])
    plan = json.loads((folder / PLAN_FILE).read_text())
    results: dict[str, Any] = {"version": platform.release(), "modes": {}}
    for mode, arguments in plan.items():
        steps: dict[str, Step] = {}
        results["modes"][mode] = steps
        for name, step in (("doctor", doctor), ("demo", demo), ("tests", tests)):
            print(f"== {mode}: {name}", flush=True)
            steps[name] = step(mode, folder, arguments)
            write(folder, results)
    results["kernel"] = complaints()
    write(folder, {**results, "complete": True})
    return 0


def complaints() -> list[str]:
    """Return what the kernel said about itself: nothing of ours may make it warn."""
    said = subprocess.run(["dmesg"], capture_output=True, text=True, check=False).stdout
    return [line for line in said.splitlines() if re.search(r"WARNING: |BUG: |Oops", line)]


def write(folder: Path, results: dict[str, Any]) -> None:
    """Replace results.json."""
    (folder / "results.json").write_text(json.dumps(results, indent=1))


def doctor(mode: str, _folder: Path, _arguments: list[str]) -> Step:
    """Return the facts as `fourwave doctor --json` has them."""
    step, output = run(mode, *FOURWAVE, "doctor", "--json")
    step["facts"] = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return step


def demo(mode: str, _folder: Path, _arguments: list[str]) -> Step:
    """Return whether the demonstration's verdicts were right.

    What it means to make needs a processor that is in time, which an emulated one is not always:
    then all of it is shown again, unless anything else was wrong. `late` tells what it was.
    """
    late: list[str] = []
    for _ in range(DEMO_TRIES):
        step, output = run(mode, *FOURWAVE, "demo", "--json")
        wrong = [text for line in map(json.loads, output.splitlines()) for text in line["wrong"]]
        if not wrong or not all(LATE.search(text) for text in wrong):
            break
        late += wrong
    return {**step, "wrong": wrong, "late": late}


def tests(mode: str, folder: Path, arguments: list[str]) -> Step:
    """Return pytest's counts, and each failure and skip with its reason."""
    if not arguments:
        return {"ok": True, "seconds": 0.0, **counted(folder / "none")}
    report = folder / f"{mode}.xml"
    pytest = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}")
    step, _ = run(mode, *pytest, *arguments, quiet=False)
    return {**step, **counted(report)}


def counted(report: Path) -> Step:
    """Return what a JUnit file says: passed, failed and skipped, by name."""
    outcome: Step = {"passed": 0, "failed": {}, "skipped": {}}
    # Our own file: pytest has just written it.
    cases = ET.parse(report).iter("testcase") if report.exists() else ()  # noqa: S314
    for case in cases:
        bad = [one for one in case if one.tag in ("failure", "error", "skipped")]
        for one in bad:
            kind = "skipped" if one.tag == "skipped" else "failed"
            outcome[kind][case.get("name")] = (one.get("message") or "")[:TAIL_CHARS]
        outcome["passed"] += not bad
    return outcome


def run(mode: str, *command: str, quiet: bool = True) -> tuple[Step, str]:
    """Run a command; return its step (ok, seconds, the end of what it said) and its stdout."""
    started = time.monotonic()
    environment = {**os.environ, **ENVIRONMENT, "FOURWAVE_HOOKS": mode}
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.PIPE if quiet else None,
            text=True,
            timeout=STEP_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"ok": False, "seconds": STEP_S, "said": "not done by then"}, ""
    step: Step = {"ok": not done.returncode, "seconds": round(time.monotonic() - started, 1)}
    if done.returncode:
        step["said"] = f"exit {done.returncode}: {(done.stderr or '')[-TAIL_CHARS:]}"
    return step, done.stdout or ""


if __name__ == "__main__":
    sys.exit(main(sys.argv))
