"""Tells people through chat, mail and whatever else apprise can address, per team, in words that a site may change."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from pilotage.flows.config.settings import PageSettings
from pilotage.planner.actions.types import Severity
from pilotage.telemetry.errors import ConfigError
from pilotage.telemetry.harmless import harmless_lines
from pilotage.telemetry.redaction import redact

if TYPE_CHECKING:
    from apprise import Apprise

log = logging.getLogger("pilotage.pager")
# it quotes addresses, which hold secrets, and answers of the other side
logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)

EVERYBODY = "*"
"""The key of the channels that are told of every incident."""
TITLE_FILE, TEXT_FILE = "title.txt", "text.txt"
"""A site's own templates, in the directory of `pages.templates`."""
TITLE = "{{ {'trigger': '', 'acknowledge': 'Looked at: ', 'resolve': 'Over: '}[action] }}{{ broken }}: {{ class }}"
"""The shipped title, as a Jinja template."""
TEXT = """\
{{ summary }}
{% if action == "trigger" %}
{% if since %}Since {{ since }}{% endif %}{% if runs %}, {{ runs }}{% endif %}.
{% if done %}Done: {{ done | join("; ") }}
{% endif %}{% if next %}Next: {{ next }}
{% endif %}{% if wanted %}Wanted: {{ wanted }}
{% endif %}{% if answer %}Answer: {{ answer }}
{% endif %}{% if card %}{{ card }}
{% endif %}{% if prefect %}{{ prefect }}
{% endif %}{% endif %}"""
"""The shipped text, as a Jinja template."""
LONGEST = 4000
"""Characters of a message; the rest is cut."""
WORDS = ("summary", "broken", "error", "class", "since", "runs", "waits", "done", "next", "wanted", "answer", "earlier",
         "card", "prefect", "incident", "severity", "action")  # fmt: skip
"""What a template may name; what an incident does not have is empty."""
_MENTION = re.compile(r"<(?=[!@#])|@(?=(?:everyone|here|channel|all)\b)", re.IGNORECASE)
Action = Literal["trigger", "acknowledge", "resolve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is said of an incident."""

    action: Action
    severity: Severity
    teams: frozenset[str]
    """Owners of its deployments, from their tags `team:…`."""
    words: Mapping[str, Any]
    """By the names in `WORDS`; redacted, and untrusted all the same."""


class Channels:
    """Sends messages to the channels of every team. Raises ConfigError for an address or a template that is no use."""

    def __init__(self, addresses: Mapping[str, Sequence[str]], *, templates: Path | None = None) -> None:
        """`addresses` are apprise's, by team; those under `*` are told of everything."""
        from apprise import Apprise  # start-up time: 0.4 s, and only where there are channels

        self._receivers: list[tuple[str, Apprise]] = []
        for team, urls in addresses.items():
            for number, url in enumerate(urls, 1):
                receiver = Apprise()
                if not receiver.add(url):
                    # the address may hold a secret, so it is not repeated here
                    raise ConfigError(
                        f"Reading `pages.channels`: address {number} of {team!r} is none that apprise knows. "
                        "Write it as https://github.com/caronc/apprise/wiki says."
                    )
                self._receivers.append((team, receiver))
        environment = SandboxedEnvironment(autoescape=False, undefined=StrictUndefined, trim_blocks=True)
        self._title = _template(environment, templates, TITLE_FILE, TITLE)
        self._text = _template(environment, templates, TEXT_FILE, TEXT)
        self._taken: dict[tuple[str, str], set[int]] = {}
        """Receivers that took a message of which others did not, by incident and action."""

    def __bool__(self) -> bool:
        """Whether there is any channel."""
        return bool(self._receivers)

    async def send(self, incident_id: str, message: Message) -> str:
        """Return why the message did not reach everybody it is for, or empty.

        Sent again, it goes to those who did not take it.
        """
        from apprise import NotifyFormat, NotifyType

        title, text = self._said(message)
        key = (incident_id, message.action)
        taken = self._taken.setdefault(key, set())
        wanted = [
            (number, team, receiver)
            for number, (team, receiver) in enumerate(self._receivers)
            if (team == EVERYBODY or team in message.teams) and number not in taken
        ]
        kind = {"resolve": NotifyType.SUCCESS, "acknowledge": NotifyType.INFO}.get(
            message.action,
            NotifyType.FAILURE
            if message.severity in (Severity.ERROR, Severity.CRITICAL)
            else NotifyType.WARNING,
        )

        async def told(receiver: Apprise) -> bool:
            try:
                return bool(
                    await receiver.async_notify(
                        body=text, title=title, notify_type=kind, body_format=NotifyFormat.TEXT
                    )
                )
            except Exception as error:  # a plugin of a channel's must not stop the loop
                log.debug("a channel failed: %s", type(error).__name__)
                return False

        answers = await asyncio.gather(*(told(receiver) for _, _, receiver in wanted))
        missed = [team for (_, team, _), ok in zip(wanted, answers, strict=True) if not ok]
        taken |= {number for (number, _, _), ok in zip(wanted, answers, strict=True) if ok}
        if not missed:
            del self._taken[key]
            return ""
        return f"{len(missed)} channel(s) of {', '.join(sorted(set(missed)))} did not take it"

    def _said(self, message: Message) -> tuple[str, str]:
        words = dict.fromkeys(WORDS, "") | dict(message.words)
        words |= {"action": message.action, "severity": message.severity.value}
        try:
            title, text = self._title.render(words), self._text.render(words)
        except Exception as error:  # a site's template; somebody is told all the same
            log.error("a template of pages.templates cannot be filled in: %s", type(error).__name__)
            title, text = f"pilotage: {words['broken']}", str(words["summary"])
        return _safe(" ".join(title.split()))[:200], _safe(text.strip())[:LONGEST]


def channels_of(pages: PageSettings) -> Channels | None:
    """Return the channels of the settings, or None when there are none. Raises ConfigError."""
    addresses = {team: [url.get_secret_value() for url in urls] for team, urls in pages.channels.items()}
    return Channels(addresses, templates=pages.templates) if any(addresses.values()) else None


def _safe(text: str) -> str:
    """The text without secrets, control characters and mentions that would call a whole channel."""
    shown = harmless_lines(redact(text))
    return _MENTION.sub(lambda found: "‹" if found.group(0) == "<" else "@ ", shown)


def _template(environment: SandboxedEnvironment, folder: Path | None, name: str, shipped: str) -> Any:
    own = folder / name if folder is not None else None
    try:
        text = own.read_text() if own is not None and own.is_file() else shipped
        template = environment.from_string(text)
        template.render(
            {word: [] if word in ("done", "earlier") else "" for word in WORDS} | {"action": "trigger"}
        )
    except (OSError, ValueError, TemplateError) as error:
        raise ConfigError(f"Reading the template {own}: {error}. It may name {', '.join(WORDS)}.") from error
    return template
