# SPDX-License-Identifier: Apache-2.0
"""seccomp: a process that lets go of system calls it never makes, for good.

See https://docs.kernel.org/userspace-api/seccomp_filter.html. libseccomp knows their numbers on
every architecture; it is called as it is, as its own Python module is the distribution's alone.
What is refused is listed, not what is allowed: no newer Python, OpenSSL or libc needs any of it.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

LIBRARY: Final = "libseccomp.so.2"
REFUSED: Final = {
    "run programs": "execve execveat",
    "open sockets": "socket connect bind listen",
    "touch other processes": (
        "ptrace process_vm_readv process_vm_writev pidfd_open pidfd_getfd kcmp"
    ),
    "have namespaces and mounts": (
        "unshare setns chroot pivot_root mount umount2 open_tree move_mount mount_setattr "
        "fsopen fsconfig fsmount fspick mknod mknodat open_by_handle_at"
    ),
    "reach rarely used parts of the kernel": (
        "bpf perf_event_open io_uring_setup io_uring_enter io_uring_register userfaultfd "
        "add_key request_key keyctl fanotify_init personality modify_ldt iopl ioperm"
    ),
    "administer": (
        "init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff "
        "settimeofday clock_settime adjtimex clock_adjtime acct quotactl syslog"
    ),
}
"""Names by purpose. One that an architecture or an older libseccomp does not have is left out."""
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM  # SCMP_ACT_ERRNO
_UNKNOWN: Final = -1


def missing() -> str | None:
    """Return why no system call can be given up here, or None."""
    if "\nSeccomp:" not in Path("/proc/self/status").read_text():
        return "the kernel has no seccomp"
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return f"{LIBRARY} is not installed"
    return None


def confine() -> str | None:
    """Refuse this thread and all it starts what it never needs; return why that failed."""
    reason = missing()
    if reason is not None:
        return reason
    seccomp = ctypes.CDLL(LIBRARY)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    made: int | None = seccomp.seccomp_init(ctypes.c_uint32(_ALLOW))
    if made is None:
        return "seccomp: no memory for a filter"
    rules = ctypes.c_void_p(made)
    try:
        for name in " ".join(REFUSED.values()).split():
            number = seccomp.seccomp_syscall_resolve_name(name.encode())
            if number != _UNKNOWN:
                seccomp.seccomp_rule_add_array(rules, ctypes.c_uint32(_REFUSE), number, 0, None)
        failed = -seccomp.seccomp_load(rules)
    finally:
        seccomp.seccomp_release(rules)
    return f"seccomp: {os.strerror(failed)} (errno {failed})" if failed else None
