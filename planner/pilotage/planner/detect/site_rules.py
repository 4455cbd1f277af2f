"""A site's own failure rules: `failure_rules.yaml`, with the columns of the shipped ones, before or after them.

```yaml
before:                       # these decide before the shipped rows; `after:` fills what they leave open
  - id: ledger-closed
    failure_class: dependency
    because: the ledger is closed at night
    phrases: ["ledger is closed"]
    cure: minutes
examples:                     # tried by `pilotage rules test`
  - {message: "Flow run encountered an exception: LedgerError: ledger is closed", failure_class: dependency}
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pilotage.planner.detect.failure_rules import FAILURE_RULES
from pilotage.planner.detect.reasoning import EXAMPLES, parsed_lines, reason
from pilotage.planner.detect.report import state_named
from pilotage.planner.detect.rulebook import Rulebook
from pilotage.planner.detect.signs.reading import read
from pilotage.planner.detect.signs.rule import ENDED_BADLY, FailureRule, Phrase
from pilotage.planner.findings import Cure, FailureClass
from pilotage.telemetry import yaml_text
from pilotage.telemetry.errors import ConfigError
from pilotage.telemetry.facts import StateType

FILE = "failure_rules.yaml"


class SiteRule(BaseModel):
    """One row of a site's file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    failure_class: FailureClass
    because: str = Field(min_length=1, max_length=200)
    """The row in words."""
    cure: Cure | None = None
    """What helps, where it is not what helps the class in general."""
    strength: Literal["code", "phrase", "family", "builtin", "weak"] = "code"
    states: tuple[str, ...] = ()
    """Failed, TimedOut or Crashed; none means any."""
    exceptions: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    despite: tuple[str, ...] = ("*",)
    """Ids of rows for permanent faults that may stand beside this one without making a retry uncertain; `*` is all."""

    def rule(self) -> FailureRule:
        """Return the row as the reasoning takes it. Raises ConfigError for a state that does not exist."""
        states = [state_named(name) for name in self.states]
        return FailureRule(
            id=self.id,
            failure_class=self.failure_class,
            because=self.because,
            cure=self.cure,
            strength=self.strength,
            state_types=frozenset(kind for kind, _ in states) or ENDED_BADLY,
            state_names=frozenset(name for _, name in states if name == "TimedOut"),
            exceptions=frozenset(self.exceptions),
            codes=frozenset(self.codes),
            phrases=tuple(map(Phrase, self.phrases)),
            also=tuple(map(Phrase, self.also)),
            unless=tuple(map(Phrase, self.unless)),
            despite=frozenset(self.despite),
        )


class Example(BaseModel):
    """A failure and what it must be taken for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    message: str
    state: str = "Failed"
    logs: tuple[str, ...] = ()
    failure_class: FailureClass
    rule: str = ""


class SiteRules(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    before: tuple[SiteRule, ...] = ()
    after: tuple[SiteRule, ...] = ()
    examples: tuple[Example, ...] = ()

    def book(self) -> Rulebook:
        """Return the shipped rules with the site's own around them."""
        if not (self.before or self.after):
            return EXAMPLES
        # a row after ours stands above the rows that say no more than that the process is gone
        cut = next(
            i
            for i, rule in enumerate(FAILURE_RULES)
            if rule.strength == "weak" and rule.id == "submission-failed"
        )
        own, rest = FAILURE_RULES[:cut], FAILURE_RULES[cut:]
        return Rulebook((*(r.rule() for r in self.before), *own, *(r.rule() for r in self.after), *rest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """A row that cannot decide because another stands before it."""

    rule_id: str
    by: str
    because: str


def load_rules(path: Path) -> SiteRules:
    """Return the rules of a file. Raises ConfigError that names the file, the row and what would be valid."""
    try:
        document: Any = yaml_text.loaded(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"Reading {path}: {error.strerror or error}. Name a file of failure rules."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"Reading {path}: it is no YAML: {str(error)[:300]}. Mend it.") from error
    try:
        rules = SiteRules.model_validate(document or {})
        ids = [rule.id for rule in (*rules.before, *rules.after)]
        for rule in (*rules.before, *rules.after):
            rule.rule()
            if not (rule.exceptions or rule.codes or rule.phrases):
                raise ConfigError(
                    f"Reading {path}: rule {rule.id} asks for nothing. Give it phrases, exceptions or codes."
                )
            if dead := [p for p in (*rule.phrases,) if not Phrase(p).key]:
                raise ConfigError(
                    f"Reading {path}: rule {rule.id}: the phrase {dead[0]!r} has no word to look for."
                )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"Reading {path}: {where}: {first['msg']}.") from error
    if twice := sorted(
        {rule_id for rule_id in ids if ids.count(rule_id) > 1 or rule_id in {r.id for r in FAILURE_RULES}}
    ):
        raise ConfigError(f"Reading {path}: the id {twice[0]} is taken. Every row needs its own.")
    return rules


def shadows_of(rules: SiteRules) -> list[Shadow]:
    """Return the rows, the site's and ours, that another row before them keeps from deciding.

    A row of the site's is tried with the least text that it fits: its own phrase, exception or code.
    """
    book, examples = rules.book(), []
    for own in (*rules.before, *rules.after):
        rule = own.rule()
        state_type = next(iter(sorted(rule.state_types, reverse=True)))
        name = next(iter(rule.state_names), "Failed" if state_type is StateType.FAILED else "Crashed")
        texts = [*own.phrases, *(f"Flow run encountered an exception: {e}: " for e in own.exceptions)]
        for text in texts:
            sample = " ".join(
                [text.replace("*", " x "), *(also.replace("*", " x ") for also in own.also[:1])]
            )
            won = book.first(
                read(sample),
                state_type,
                name,
                strengths=frozenset({"code", "phrase", "family", "builtin", "weak"}),
            )
            if won is not None and won.id != own.id:
                examples.append(
                    Shadow(rule_id=own.id, by=won.id, because=f"“{text.strip()}” is decided by {won.id}")
                )
    for shipped in FAILURE_RULES:
        for own in rules.before:
            covered = {p.text for p in shipped.phrases} <= set(own.phrases) and shipped.exceptions <= set(
                own.exceptions
            )
            if covered and (shipped.phrases or shipped.exceptions) and shipped.codes <= set(own.codes):
                examples.append(
                    Shadow(
                        rule_id=shipped.id,
                        by=own.id,
                        because=f"{own.id} takes all that {shipped.id} looks for",
                    )
                )
    return examples


def failed_examples(rules: SiteRules) -> list[tuple[Example, FailureClass, str]]:
    """Return the examples that are taken for something else, with the class and the row that decided."""
    book = rules.book()
    wrong = []
    for example in rules.examples:
        state_type, name = state_named(example.state)
        diagnosis = reason(state_type, name, example.message, _lines(example.logs), book)
        if diagnosis.failure_class is not example.failure_class or (
            example.rule and example.rule != diagnosis.rule_id
        ):
            wrong.append((example, diagnosis.failure_class, diagnosis.rule_id))
    return wrong


def _lines(logs: Sequence[str]) -> list[Any]:
    return list(parsed_lines(logs))
