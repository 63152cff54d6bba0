# SPDX-License-Identifier: Apache-2.0
"""What is let go of comes back as it was."""

from __future__ import annotations

import json
import subprocess
import sys

from tracer import memory

SMAPS = """\
7f10-7f20 r--p 00000000 fe:00 11 /usr/lib/lib with spaces.so
Rss:                  16 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
7f20-7f30 r-xp 00001000 fe:00 11 /usr/lib/lib.so
Anonymous:             0 kB
7f30-7f40 r--p 00002000 fe:00 11 /usr/lib/lib.so
Anonymous:            16 kB
7f40-7f50 rw-p 00003000 fe:00 11 /usr/lib/lib.so
Anonymous:             0 kB
7f50-7f60 r--p 00000000 00:00 0
Anonymous:             0 kB
7f60-7f70 r--s 00000000 00:05 12 /memfd:census (deleted)
Anonymous:             0 kB
"""

SETTLED = """
import json, re, ssl, numpy
from tracer import memory
def rollup():
    found = re.findall(r"^(Rss|Anonymous): +(\\d+)", open("/proc/self/smaps_rollup").read(), re.M)
    return {name: int(kilobytes) for name, kilobytes in found}
before = rollup()
memory.settle()
after = rollup()
assert numpy.linalg.solve([[2.0]], [4.0]) == 2
assert ssl.create_default_context().get_ciphers()
print(json.dumps([before, after]))
"""


def test_only_what_a_file_still_has_is_let_go() -> None:
    """Not data that was relocated before it was made read-only, nor what can be written."""
    pages = list(memory._unwritten(SMAPS.splitlines()))
    assert pages == [(0x7F10, 0x7F20), (0x7F20, 0x7F30), (0x7F60, 0x7F70)]


def test_a_process_goes_on_with_less() -> None:
    """Relocated libraries work as before."""
    ended = subprocess.run([sys.executable, "-c", SETTLED], capture_output=True, check=True)
    before, after = json.loads(ended.stdout)
    assert before["Rss"] - after["Rss"] > 4_000
    assert after["Anonymous"] <= before["Anonymous"] + 200
