"""A checkpoint kept elsewhere shows what the chain alone cannot: a cut tail and a log written again."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.policies.audit.checkpoints import kept_in
from pilotage.policies.audit.ed25519 import Ed25519Signer, Ed25519Verifier
from pilotage.policies.audit.merkle import MerkleTree
from pilotage.policies.ledger.checkpoint_job import sign_checkpoint, verifier_for
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.telemetry.errors import ConfigError, InvariantError

Make = Callable[..., Any]


def by_definition(leaves: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + by_definition(leaves[:k]) + by_definition(leaves[k:])).digest()


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_the_root_is_that_of_the_definition(leaves: list[bytes]) -> None:
    tree = MerkleTree()
    for leaf in leaves:
        tree.add(leaf)
    assert tree.root() == by_definition(leaves)
    assert tree.size == len(leaves)


def test_the_roots_of_certificate_transparencys_own_test_vectors_come_out() -> None:
    leaves = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    tree = MerkleTree()
    for leaf in leaves:
        tree.add(bytes.fromhex(leaf))
    assert tree.root().hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@pytest.fixture
def signer(tmp_path: Path) -> Ed25519Signer:
    return Ed25519Signer.kept_at(tmp_path / "audit.key")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere"


@pytest.fixture
def vouched(
    ledger: SqlLedger, filed: Make, now: datetime, signer: Ed25519Signer, elsewhere: Path
) -> SqlLedger:
    """Seven entries, vouched for at the third and at the sixth."""
    for number in range(1, 8):
        ledger.file(filed(number=number))
        if number in (3, 6):
            assert sign_checkpoint(ledger, signer, elsewhere, "test", now) is not None
    return ledger


@contextmanager
def attacked(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path / "ledger.sqlite")
    connection.executescript("DROP TRIGGER audit_no_UPDATE; DROP TRIGGER audit_no_DELETE")
    yield connection
    connection.commit()
    connection.close()


def rewrite_from(connection: sqlite3.Connection, first: int) -> None:
    """Edits an entry and computes every hash after it again, as an attacker with the file would."""
    prefix = b"pilotage.audit.v1\0"
    prev = "0" * 64
    for seq, body, kept in connection.execute("SELECT seq, body, hash FROM audit ORDER BY seq").fetchall():
        if seq == first:
            body = body.replace('"actor":"pilot"', '"actor":"ghost"')
        digest = (
            kept if seq < first else hashlib.sha256(prefix + bytes.fromhex(prev) + body.encode()).hexdigest()
        )
        connection.execute(
            "UPDATE audit SET body = ?, prev = ?, hash = ? WHERE seq = ?", (body, prev, digest, seq)
        )
        prev = digest


def held_against(ledger: SqlLedger, elsewhere: Path) -> Any:
    return ledger.verify_audit(kept_in(elsewhere, verifier_for(elsewhere, "")))


def test_an_untouched_log_agrees_with_its_checkpoints(vouched: SqlLedger, elsewhere: Path) -> None:
    report = held_against(vouched, elsewhere)
    assert (report.ok, report.length, report.checkpoints) == (True, 7, 2)


ATTACKS: dict[str, tuple[str | int, bool, int, str]] = {
    # what is done, whether the chain alone sees it, the first bad entry, why
    "edited": ("UPDATE audit SET body = replace(body, 'pilot', 'ghost') WHERE seq = 2", True, 2, "changed"),
    "deleted": ("DELETE FROM audit WHERE seq = 4", True, 4, "missing"),
    "truncated": ("DELETE FROM audit WHERE seq > 4", False, 5, "the tail was cut: 4 entries"),
    "emptied": ("DELETE FROM audit", False, 1, "the tail was cut: 0 entries"),
    "wholly rewritten": (1, False, 1, "entries 1 to 3 were written again"),
    "rewritten from the fifth": (5, False, 4, "entries 4 to 6 were written again"),
}


@pytest.mark.parametrize(("attack", "chain_sees", "where", "why"), ATTACKS.values(), ids=ATTACKS.keys())
def test_an_attack_is_found(
    vouched: SqlLedger,
    tmp_path: Path,
    elsewhere: Path,
    attack: str | int,
    chain_sees: bool,
    where: int,
    why: str,
) -> None:
    with attacked(tmp_path) as connection:
        if isinstance(attack, str):
            connection.execute(attack)
        else:
            rewrite_from(connection, attack)
    assert vouched.verify_audit().ok is not chain_sees
    report = held_against(vouched, elsewhere)
    assert (report.ok, report.first_bad) == (False, where)
    assert why in report.why


def test_what_was_written_after_the_last_checkpoint_can_still_be_rewritten(
    vouched: SqlLedger, tmp_path: Path, elsewhere: Path
) -> None:
    """The limit of the method, stated: a checkpoint vouches for what came before it."""
    with attacked(tmp_path) as connection:
        rewrite_from(connection, 7)
    assert held_against(vouched, elsewhere).ok


def test_a_log_that_is_not_the_one_vouched_for_is_not_signed(
    vouched: SqlLedger, tmp_path: Path, elsewhere: Path, signer: Ed25519Signer, now: datetime
) -> None:
    with attacked(tmp_path) as connection:
        rewrite_from(connection, 2)
    before = sorted(elsewhere.iterdir())
    with pytest.raises(InvariantError, match="nothing was signed"):
        sign_checkpoint(vouched, signer, elsewhere, "test", now)
    assert sorted(elsewhere.iterdir()) == before


FORGERIES = {
    "another size": lambda text: text.replace("\n6\n", "\n5\n"),
    "another head": lambda text: text.replace("head ", "head 0"),
    "no signature": lambda text: text.split("\n\n")[0] + "\n\n",
    "no note": lambda text: "hello",
    "a signature that is none": lambda text: text[:-9] + "AAAAAAA=\n",
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forged_checkpoint_is_refused_by_name(
    vouched: SqlLedger, elsewhere: Path, forge: Callable[[str], str]
) -> None:
    note = elsewhere / "000000000006.note"
    note.write_text(forge(note.read_text()))
    with pytest.raises(ConfigError, match="000000000006"):
        held_against(vouched, elsewhere)


def test_a_checkpoint_by_another_key_is_refused(vouched: SqlLedger, elsewhere: Path, tmp_path: Path) -> None:
    other = Ed25519Signer.kept_at(tmp_path / "other.key")
    with pytest.raises(ConfigError, match="no valid signature by pilotage"):
        kept_in(elsewhere, Ed25519Verifier(other.public()))


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    first = Ed25519Signer.kept_at(path).public()
    assert path.stat().st_mode & 0o777 == 0o600
    assert Ed25519Signer.kept_at(path).public() == first
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Ed25519Signer.kept_at(path)


@pytest.mark.parametrize("public", ["", "pilotage", "a+b+c", "pilotage+00000000+AQ=="])
def test_what_is_no_public_key_is_refused(public: str) -> None:
    with pytest.raises(ConfigError, match="public key"):
        Ed25519Verifier(public)


def test_a_place_without_checkpoints_vouches_for_nothing(
    ledger: SqlLedger, signer: Ed25519Signer, tmp_path: Path, elsewhere: Path, now: datetime
) -> None:
    assert sign_checkpoint(ledger, signer, elsewhere, "test", now) is None
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="nothing vouches"):
        kept_in(empty, Ed25519Verifier(signer.public()))
