# SPDX-License-Identifier: Apache-2.0
# What of BCC's Python module the loader uses; it is the distribution's and has no types.

class _Table:
    map_fd: int

# A compiled text: its maps exist, its functions can be taken out as instructions.
class BPF:
    def __init__(self, *, text: str, cflags: list[str]) -> None: ...
    def __getitem__(self, name: str) -> _Table: ...
    def dump_func(self, func_name: bytes) -> bytes: ...
