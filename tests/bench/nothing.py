# SPDX-License-Identifier: Apache-2.0
"""The floor: programs on changes of state that do nothing, as many as asked for, until SIGINT.

What these cost is the kernel's way to a program; no tracer that sees every change can cost less.
"""

from __future__ import annotations

import ctypes
import signal
import struct
import sys
from typing import Final

from tracer.kernel import bpf, bpf_attr

RAW_TRACEPOINT_OPEN: Final = 17
NOTHING: Final = struct.pack("=" + "BBhi" * 2, *(0xB7, 0x00, 0, 0), *(0x95, 0x00, 0, 0))
"""r0 = 0; exit"""


def attach(number: int) -> int:
    """Attach one that does nothing; return its link. Raises LoadError."""
    name = ctypes.create_string_buffer(b"inet_sock_set_state")
    program = bpf.load_for_test_run(f"nothing_{number}", NOTHING)
    attr = bpf_attr.RawTracepoint(ctypes.addressof(name), program, 0)
    return bpf.call(RAW_TRACEPOINT_OPEN, attr, "attach nothing")


if __name__ == "__main__":
    for each in range(int(sys.argv[1])):
        attach(each)
    signal.sigwait({signal.SIGINT})
