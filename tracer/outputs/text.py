# SPDX-License-Identifier: Apache-2.0
"""How numbers, addresses and colours look in text; what the forms share."""

from __future__ import annotations

from typing import Final

RESET: Final = "\x1b[0m"
BOLD: Final = "\x1b[1m"
DIM: Final = "\x1b[2m"
RED: Final = "\x1b[31m"
GREEN: Final = "\x1b[32m"
YELLOW: Final = "\x1b[33m"

# Calm for what ended as it should; red for RST, yellow for what gave up.
KIND_COLORS: Final = {
    "active": "",
    "passive": "",
    "simultaneous": "",
    "abort": RED,
    "reset": RED,
    "timeout": YELLOW,
    "refused": YELLOW,
    "attempt_failed": YELLOW,
    "unknown": DIM,
}

# (upper bound in µs, unit, µs per unit): the first bound that is above the value gives the unit.
DURATION_UNITS: Final = (
    (1_000, "us", 1),
    (1_000_000, "ms", 1_000),
    (60_000_000, "s", 1_000_000),
    (3_600_000_000, "m", 60_000_000),
    (86_400_000_000, "h", 3_600_000_000),
)
DAY_US: Final = 86_400_000_000
ELLIPSIS: Final = "…"


def paint(text: str, color: str) -> str:
    """Wrap the text in a colour; the empty colour leaves it as it is."""
    return f"{color}{text}{RESET}" if color else text


def duration(us: int | None) -> str:
    """Return at most 5 characters: 34us, 1.2ms, 45s, 3.4h, 120d; "-" when not known."""
    if us is None:
        return "-"
    for bound, unit, size in DURATION_UNITS:
        if us < bound:
            return _two_digits(us, size) + unit
    return _two_digits(us, DAY_US) + "d"


# One decimal below ten, where it says something; rounding up to the next unit is avoided.
def _two_digits(us: int, size: int) -> str:
    if size == 1 or us >= 10 * size:
        return str(us // size)
    return f"{us * 10 // size / 10:.1f}"


def endpoint(addr: str, port: int) -> str:
    """Return addr:port, an IPv6 address in brackets."""
    return f"[{addr}]:{port}" if ":" in addr else f"{addr}:{port}"


def short_endpoint(addr: str, port: int, width: int) -> str:
    """Return addr:port in at most `width` columns; a long IPv6 address loses its middle."""
    whole = endpoint(addr, port)
    if len(whole) <= width:
        return whole
    room = width - len(f"[{ELLIPSIS}]:{port}")
    tail = room // 2
    return f"[{addr[: room - tail]}{ELLIPSIS}{addr[-tail:]}]:{port}"


def shorten(text: str, width: int) -> str:
    """Return the text in at most `width` columns, cut with an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + ELLIPSIS


def cut(text: str, width: int) -> str:
    """Return the text in at most `width` columns; the port or the pid at its end is kept."""
    at = max(text.rfind(":"), text.rfind("["))
    end = text[at:] if at > 0 else ""
    if len(text) <= width or len(end) >= width:
        return shorten(text, width)
    return text[: width - 1 - len(end)] + ELLIPSIS + end


def plural(count: int, noun: str) -> str:
    """Return "1 close", "2 closes" and the like, thousands grouped."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
