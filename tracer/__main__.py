# SPDX-License-Identifier: Apache-2.0
"""`python -m tracer` is `fourwave`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; who interrupts while it is still being imported gets no traceback."""
    try:
        from tracer import cli  # noqa: PLC0415 - that is the point

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
