# SPDX-License-Identifier: Apache-2.0
"""`fourwave kill`: what would be ended, what both sides see, and what came of it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

from tracer.close_text import address, state_name
from tracer.detectors.holders import Holders
from tracer.detectors.stale import silent_ms
from tracer.outputs import findings as form
from tracer.outputs import table
from tracer.outputs.live import volume
from tracer.outputs.table import Column
from tracer.outputs.text import duration, endpoint, plural
from tracer.tcp import TcpState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    import numpy.typing as npt

    from tracer.census import Census, Rows

US_PER_MS: Final = 1_000
MS_PER_S: Final = 1_000
SEEN: Final = {
    TcpState.CLOSE_WAIT: (
        "CLOSE_WAIT: each peer gets a RST; most have long forgotten the connection. A process "
        "that waits for the socket is woken, writing fails with ECONNABORTED, reading meets the "
        "end as before. The descriptor stays until the process closes it."
    ),
    TcpState.FIN_WAIT2: (
        "FIN_WAIT2: each peer gets a RST, and ECONNRESET or EPIPE when it reads or writes; what it "
        "has still to send is lost. A process that waits to read gets ECONNABORTED."
    ),
}


def as_lines(chosen: Rows, census: Census, limit: int, width: int, *, color: bool) -> list[str]:
    """Return the sockets by namespace, no more than `limit`, and what ending them means."""
    holders, names, shown = Holders(census), form.netns_names(census), chosen[:limit]
    lines: list[str] = []
    for netns in dict.fromkeys(shown["netns"].tolist()):
        lines += form.heading(f"netns {names.get(netns, netns)}", width, color=color)
        rows = [_cells(row, holders) for row in shown[shown["netns"] == netns]]
        lines += table.lines(COLUMNS, rows, width, color=color)
    if len(chosen) > limit:
        lines.append(f"({plural(len(chosen) - limit, 'more socket')})")
    for state, words in SEEN.items():
        if (chosen["state"] == state).any():
            lines += ["", *textwrap.wrap(words, width)]
    return lines


COLUMNS: Final = (
    Column("STATE"),
    Column("SILENT", right=True),
    Column("UNREAD", right=True),
    Column("HELD BY", least=10),
    Column("LOCAL", least=12),
    Column("REMOTE", least=12),
)


def _cells(row: npt.NDArray[np.void], holders: Holders) -> list[str]:
    named, count = holders.of(int(row["ino"]))
    return [
        state_name(int(row["state"])),
        duration(int(silent_ms(row)) * US_PER_MS),
        volume(max(0, int(row["unread"]) - 1)),
        form.who(named, count),
        endpoint(_addr(row, "laddr"), int(row["lport"])),
        endpoint(_addr(row, "raddr"), int(row["rport"])),
    ]


def _addr(row: npt.NDArray[np.void], name: str) -> str:
    return address(row[name].tobytes(), int(row["family"]))


def as_json(
    chosen: Rows, census: Census, results: Mapping[int, int] | None, explain: Callable[[int], str]
) -> Iterator[str]:
    """Return a line per socket; `results` are errnos by cookie, None: nothing was done."""
    holders = Holders(census)
    for row in chosen:
        named, count = holders.of(int(row["ino"]))
        code = None if results is None else results.get(int(row["cookie"]))
        at: dict[str, Any] = {
            "state": state_name(int(row["state"])).lower(),
            "silent_s": int(silent_ms(row)) / MS_PER_S,
            "unread_bytes": max(0, int(row["unread"]) - 1),
            "holders": form.holders_json(named),
            "holder_count": count,
            "netns": int(row["netns"]),
            "laddr": _addr(row, "laddr"),
            "lport": int(row["lport"]),
            "raddr": _addr(row, "raddr"),
            "rport": int(row["rport"]),
            "cookie": int(row["cookie"]),
            "ended": None if results is None else code == 0,
            "result": None if results is None else _told(code, explain),
        }
        yield form.json_line("kill", at)


def outcome(chosen: Rows, results: Mapping[int, int], explain: Callable[[int], str]) -> list[str]:
    """Return how many were ended, and why others were not."""
    codes = [results.get(cookie) for cookie in chosen["cookie"].tolist()]
    ended = codes.count(0)
    others = sorted({code for code in codes if code != 0}, key=str)
    return [
        f"{plural(ended, 'socket')} ended.",
        *(f"{plural(codes.count(code), 'socket')} not: {_told(code, explain)}." for code in others),
    ]


def _told(code: int | None, explain: Callable[[int], str]) -> str:
    return "changed since it was shown, left alone" if code is None else explain(code)
