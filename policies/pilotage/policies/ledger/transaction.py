"""What every part of the ledger needs of the whole: a transaction to read in, and one to write in."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import sqlalchemy as sa


class Transactions(Protocol):
    """Given by `SqlLedger`; `what` is being done is said in the error when it cannot be."""

    unreadable: dict[str, str]
    """Why what is stored of a proposal could not be read, by its id, until `set_aside_unreadable` has noted it."""

    def reading(self, what: str) -> AbstractContextManager[sa.Connection]:
        """A connection whose reads see one moment."""
        ...

    def writing(self, what: str) -> AbstractContextManager[sa.Connection]:
        """A transaction that holds the write lock from its beginning; rolled back when anything is raised."""
        ...
