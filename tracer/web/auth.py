# SPDX-License-Identifier: Apache-2.0
"""Basic authentication against bcrypt hashes, without letting anybody keep the server busy."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import bcrypt

if TYPE_CHECKING:
    from collections.abc import Mapping

REMEMBERED_MAX: Final = 100
WAITING_MAX: Final = 32
"""Passwords waiting to be hashed, each some 50 ms; more are turned away at once."""
# An unknown user costs what a known one does, or names could be told apart by time.
NOBODY: Final = b"$2b$10$gDq6Cvi4W0FSdAGMNQhMnuErWGOVVf8dvTEmzNMWXC9tJQdNVXK6y"


class Passwords:
    """Who may come in. A password that was right is not hashed again."""

    def __init__(self, users: Mapping[str, bytes]) -> None:
        """Take bcrypt hashes by user; with none everybody may."""
        self._users = users
        self._right: dict[bytes, None] = {}
        self._waiting = 0
        # bcrypt lets other threads run; one is enough to slow a guesser down.
        self._hasher = ThreadPoolExecutor(1, "bcrypt") if users else None

    async def allow(self, authorization: str | None) -> bool:
        """Say whether an Authorization header names a user and the right password."""
        if self._hasher is None:
            return True
        pair = _decode(authorization)
        if pair is None:
            return False
        user, password = pair
        hashed = self._users.get(user, NOBODY)
        known = hashlib.sha256(b"\0".join((user.encode(), hashed, password))).digest()
        if known in self._right:
            return True
        if self._waiting >= WAITING_MAX:
            return False
        right = await self._check(password, hashed) and user in self._users
        if right:
            self._remember(known)
        return right

    def close(self) -> None:
        """Hash no more."""
        if self._hasher is not None:
            self._hasher.shutdown(wait=False, cancel_futures=True)

    async def _check(self, password: bytes, hashed: bytes) -> bool:
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._hasher, _matches, password, hashed)
        finally:
            self._waiting -= 1

    def _remember(self, known: bytes) -> None:
        self._right[known] = None
        while len(self._right) > REMEMBERED_MAX:
            del self._right[next(iter(self._right))]


# bcrypt takes 72 bytes; Go's refuses more as well.
def _matches(password: bytes, hashed: bytes) -> bool:
    return len(password) <= 72 and b"\0" not in password and bcrypt.checkpw(password, hashed)


def _decode(authorization: str | None) -> tuple[str, bytes] | None:
    scheme, _, text = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(text, validate=True).partition(b":")
        return (user.decode(), password) if colon else None
    except (binascii.Error, UnicodeError):
        return None
