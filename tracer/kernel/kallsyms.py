# SPDX-License-Identifier: Apache-2.0
"""Spare BCC the reading of /proc/kallsyms."""

from __future__ import annotations

import ctypes
import os
import tempfile

__all__ = ("shorten_kallsyms",)

_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000


def shorten_kallsyms() -> None:
    """Let this process alone see one line in /proc/kallsyms.

    BCC reads all of it at every compile, to learn whether the kernel has
    bpf_probe_read_kernel(), and that takes as long as the compile itself. A mount namespace
    of this process's own, which is about to end, shows it that one answer (the helper is older
    than the programs' type). Where that is not allowed, BCC just reads on.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        return
    # Not for others to see: mounts may be shared between namespaces.
    libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)
    with tempfile.NamedTemporaryFile("w") as stand_in:
        stand_in.write("ffffffff81000000 T bpf_probe_read_kernel\n")
        stand_in.flush()
        file = os.fsencode(stand_in.name)
        libc.mount(file, b"/proc/kallsyms", None, ctypes.c_ulong(_MS_BIND), None)
