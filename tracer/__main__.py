# SPDX-License-Identifier: Apache-2.0
"""`python -m tracer` is `fourwave`."""

from tracer.cli import main

if __name__ == "__main__":
    main()
