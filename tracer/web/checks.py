# SPDX-License-Identifier: Apache-2.0
"""What sections of a web configuration file must look like."""

from __future__ import annotations

from typing import Any


def keys(content: Any, known: tuple[str, ...], where: str) -> dict[str, Any]:
    """Return the mapping. Raises ValueError for anything else and for keys that are not known."""
    if not isinstance(content, dict):
        raise ValueError(  # noqa: TRY004 - every fault of the file is one
            f"{where}: keys and values are needed, not {content!r}"
        )
    for key in content:
        if key not in known:
            raise ValueError(f"{where}: {key!r} is not known; there are {', '.join(known)}")
    return content


def texts(content: Any, known: tuple[str, ...], where: str) -> dict[str, str]:
    """Return the mapping of texts without line ends. Raises ValueError."""
    found = keys(content, known, where)
    for key, value in found.items():
        if not isinstance(value, str) or not value.isprintable():
            raise ValueError(f"{where}.{key}: a line of text is needed, not {value!r}")
    return found
