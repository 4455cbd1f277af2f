"""The Merkle tree hash of RFC 9162, section 2.1.1, grown leaf by leaf in logarithmic space."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

_LEAF, _NODE = b"\x00", b"\x01"
"""Told apart so that no leaf can pass for a node."""


class MerkleTree:
    """A list of leaves of which only the roots of the full subtrees are kept."""

    def __init__(self, peaks: Iterable[tuple[int, bytes]] = ()) -> None:
        """`peaks` are those of a tree that goes on."""
        self._peaks: list[tuple[int, bytes]] = list(peaks)  # (leaves beneath, root), the largest first
        self._size = sum(width for width, _ in self._peaks)

    @property
    def size(self) -> int:
        """How many leaves were added."""
        return self._size

    @property
    def peaks(self) -> tuple[tuple[int, bytes], ...]:
        """The full subtrees, the largest first: leaves beneath and root of each. Of them a tree goes on."""
        return tuple(self._peaks)

    def add(self, leaf: bytes) -> None:
        """Adds one leaf at the end."""
        width, root = 1, hashlib.sha256(_LEAF + leaf).digest()
        while self._peaks and self._peaks[-1][0] == width:
            _, left = self._peaks.pop()
            width, root = width * 2, _joined(left, root)
        self._peaks.append((width, root))
        self._size += 1

    def root(self) -> bytes:
        """The tree hash over all leaves so far; of none, the hash of nothing."""
        if not self._peaks:
            return hashlib.sha256(b"").digest()
        root = self._peaks[-1][1]
        for _, left in reversed(self._peaks[:-1]):
            root = _joined(left, root)
        return root


def _joined(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()
