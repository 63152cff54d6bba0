# SPDX-License-Identifier: Apache-2.0
"""`fourwave serve` once its command line was read: the same process, without what read it.

Usage: python -m tracer.serve_resident OPTIONS_JSON, the fields of ServeWishes. A parser of
command lines would stay in the memory of a process that stays, and of what is forked from it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping


def become(options: Mapping[str, Any]) -> NoReturn:
    """Go on as the resident: process id, streams and environment stay."""
    # Nothing here multiplies matrices: a thread pool would only cost memory.
    added = {"PYTHONPATH": search_path(), "OPENBLAS_NUM_THREADS": "1"}
    os.execve(  # noqa: S606 - no shell is meant
        sys.executable,
        [sys.executable, "-P", "-m", __name__, json.dumps(options)],
        {**os.environ, **added},
    )


def search_path() -> str:
    """Return PYTHONPATH with which another interpreter finds what this one does."""
    return os.pathsep.join(filter(None, sys.path))


def main(options: dict[str, Any]) -> None:
    """Serve until told to stop; every error ends here."""
    from tracer import exits  # noqa: PLC0415

    with exits.bugs(["serve"]), exits.known_errors():
        from tracer.serve import ServeWishes, serve  # noqa: PLC0415

        addresses = tuple((host, port) for host, port in options.pop("addresses"))
        serve(ServeWishes(addresses=addresses, **options))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
