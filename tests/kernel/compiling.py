# SPDX-License-Identifier: Apache-2.0
"""Compile all texts against one kernel's types; run by the Python that has BCC.

Usage: compiling.py BTF_FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tracer.kernel import load, load_census, load_origins  # noqa: E402
from tracer.kernel.btf import Btf  # noqa: E402
from tracer.kernel.facts import facts  # noqa: E402
from tracer.kernel.header import MEMBERS, kernel_types  # noqa: E402
from tracer.kernel.source_text import assemble  # noqa: E402

SIZES = (
    *("conn_max", "slots", "sweep_slots", "rings", "ring_pages", "cpu_slots", "strays_max"),
    *("ports_max", "states_max", "hz", "origins_max", "user_stacks_max"),
)
# Small powers of two: how large the maps are is not the question.
OPTIONS = {**dict.fromkeys(SIZES, 4), "rings": 2}


def main(argv: list[str]) -> int:
    """Compile; 0 when all texts did. The compiler's errors are on stderr."""
    btf, bcc = Btf(argv[1]), load.import_bcc()
    texts = (
        ("teardown.bpf.c", MEMBERS, load.macros_of(OPTIONS)),
        (load_census.MAIN, load_census.CENSUS_MEMBERS, load_census.macros_of(OPTIONS)),
        (load_origins.MAIN, load_origins.ORIGIN_MEMBERS, load_origins.macros_of(OPTIONS)),
    )
    for name, members, macros in texts:
        text = assemble(ROOT / "bpf", name, kernel_types(btf, members), facts(btf))
        load.run_bcc(bcc, text, [*macros, *load.CFLAGS])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
