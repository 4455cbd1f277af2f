"""One policy bundle: a directory of schema, Cedar files and guardrail numbers, checked and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pilotage.policies.cedar.engine import CedarEngine
from pilotage.policies.cedar.guardrails import Guardrails, guardrails_from_text
from pilotage.policies.cedar.protocol import PolicyEngine, PolicyNote
from pilotage.telemetry.errors import ConfigError

DEFAULT_BUNDLE = Path(__file__).parents[1] / "bundles" / "default"
SCHEMA_FILE = "schema.cedarschema"
GUARDRAILS_FILE = "guardrails.yaml"

Compiler = Callable[[str, Mapping[str, str]], PolicyEngine]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Immutable and whole: the gate swaps it for another in one assignment."""

    hash: str
    """SHA-256 over every file's name and bytes; stored with each verdict."""
    directory: Path
    guardrails: Guardrails
    engine: PolicyEngine
    notes: Mapping[str, PolicyNote]
    """Every policy by its `@id`."""
    schema: str = ""
    """The text of the schema."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """The text of each Cedar file by its name."""

    @classmethod
    def load(
        cls,
        directory: Path | None = None,
        compiler: Compiler = CedarEngine.compiled,
        *,
        guardrails: Path | None = None,
    ) -> Bundle:
        """The bundle in this directory, or the shipped one. Raises ConfigError on any flaw of any file.

        `guardrails` names a YAML file that takes the place of the bundle's own numbers.
        """
        where = DEFAULT_BUNDLE if directory is None else directory
        return cls.of(texts_in(where, guardrails), where, compiler, numbers=guardrails)

    @classmethod
    def of(
        cls,
        texts: Mapping[str, str],
        where: Path,
        compiler: Compiler = CedarEngine.compiled,
        *,
        numbers: Path | None = None,
    ) -> Bundle:
        """The bundle of these texts, by file name; `where` they came from is for messages. Raises ConfigError."""
        schema = texts.get(SCHEMA_FILE)
        if schema is None:
            raise ConfigError(
                f"loading policies from {where}: no {SCHEMA_FILE}; copy the one of {DEFAULT_BUNDLE}"
            )
        policies = {name: text for name, text in texts.items() if name.endswith(".cedar")}
        limits = guardrails_from_text(texts.get(GUARDRAILS_FILE, ""), numbers or where / GUARDRAILS_FILE)
        try:
            engine = compiler(schema, policies)
        except ConfigError as exc:
            raise ConfigError(f"{where}: {exc}") from exc
        return cls(
            hash=hash_of(texts),
            directory=where,
            guardrails=limits,
            engine=engine,
            notes=engine.notes(),
            schema=schema,
            texts=policies,
        )


def hash_of(texts: Mapping[str, str]) -> str:
    """SHA-256, in hex, over the name and bytes of every file of these that decides."""
    digest = hashlib.sha256()
    for name in sorted(name for name in texts if _decides(name)):
        encoded = texts[name].encode()
        digest.update(f"{name}\0{len(encoded)}\0".encode() + encoded)
    return digest.hexdigest()


def texts_in(directory: Path, guardrails: Path | None = None) -> dict[str, str]:
    """The text of each file in this directory that decides, with `guardrails` for its own numbers. Raises ConfigError."""
    texts = _texts(directory)
    if guardrails is not None:
        texts[GUARDRAILS_FILE] = _text(guardrails)
    return texts


def _decides(name: str) -> bool:
    return name.endswith(".cedar") or name in (SCHEMA_FILE, GUARDRAILS_FILE)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"loading guardrails from {path}: {exc}; name a UTF-8 file that can be read"
        ) from exc


def _texts(where: Path) -> dict[str, str]:
    try:
        files = sorted(path for path in where.iterdir() if _decides(path.name))
        return {path.name: path.read_bytes().decode() for path in files}
    except OSError as exc:
        raise ConfigError(f"loading policies from {where}: {exc}; name a directory that can be read") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(
            f"loading policies from {where}: a file is not UTF-8 ({exc}); save it as UTF-8"
        ) from exc
