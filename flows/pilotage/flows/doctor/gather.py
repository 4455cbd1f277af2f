"""Gathers the facts of `pilotage doctor`. Nothing is changed: a problem is a value, and the next check goes on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import httpx

from pilotage.flows.api.client import token_for, token_path
from pilotage.flows.api.offline_ledger import reading_ledger
from pilotage.flows.config.paths import StatePaths, paths, runner_of
from pilotage.flows.config.settings import LLMSettings, Settings, load_settings
from pilotage.flows.config.state_directory import check_state_directory, loose_paths, permissions_of
from pilotage.flows.doctor.facts import (
    DeploymentFacts,
    DoctorFacts,
    ModeFacts,
    ModelFacts,
    PolicyFacts,
    Problem,
    ServerFacts,
    UserFacts,
    WebhookFacts,
)
from pilotage.flows.doctor.server import KeyRefusedError, ServerReader
from pilotage.flows.execution.mode import FIRST, ModeSwitch
from pilotage.flows.notify.channels import channels_of
from pilotage.flows.notify.notifier import Notifier
from pilotage.planner.actions.types import Severity
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.identity.users import IdentityBook
from pilotage.policies.roles import Role
from pilotage.telemetry.errors import ConfigError, PilotageError
from pilotage.telemetry.prefect.servers import NEWEST_TRIED, OLDEST_SERVER, unfit
from pilotage.telemetry.redaction import redact

PATIENCE = 20.0
"""Seconds in which the Prefect server must have answered everything."""
OPENAI = "https://api.openai.com/v1"
"""Where a model is that has a key and no address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the doctor was asked to look at."""

    state_dir: Path | None = None
    token_file: Path | None = None
    config: Path | None = None
    send_test: bool = False
    """Whether the webhook is sent a test, which its receiver sees."""


async def gather_facts(asked: Request) -> DoctorFacts:
    """Return the facts. Raises nothing that a person could mend."""
    settings, trouble = _settings(asked)
    where = settings.paths
    api_url, server, key_refused = await _server()
    directory = _problem_of(lambda: check_state_directory(where.root))
    exists = where.root.is_dir()
    return DoctorFacts(
        pilotage=_version("pilotage"),
        client=_version("prefect", "prefect-client"),
        settings=trouble,
        root=where.root,
        directory=directory,
        exists=exists,
        loose={path: permissions_of(path) for path in loose_paths(where.root)} if exists else {},
        token=_token(where, asked.token_file),
        token_file=token_path(where, asked.token_file),
        users=_users(where),
        running=_running(where),
        mode=_mode(where, settings),
        policies=_policies(where, settings),
        webhook=await _webhook(settings, send_test=asked.send_test),
        model=await _model(settings.llm),
        api_url=api_url,
        server=server,
        key_refused=key_refused,
    )


async def read_deployments() -> tuple[DeploymentFacts, ...]:
    """Return every deployment of the active profile's server. Raises OrchestratorError."""
    async with ServerReader.from_prefect_settings().opened() as reader:
        return await reader.deployments()


def _version(*packages: str) -> str:
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "not installed"


def _settings(asked: Request) -> tuple[Settings, Problem | None]:
    """The settings, or the defaults and what is wrong with what was set."""
    try:
        return load_settings(config=asked.config, state_dir=asked.state_dir), None
    except PilotageError as exc:
        try:
            root = paths(asked.state_dir).root
        except PilotageError:
            root = Path.home() / ".pilotage"
        return Settings.model_construct(state_dir=root), Problem(message=str(exc))


def _problem_of(check: Any) -> Problem | None:
    try:
        check()
    except PilotageError as exc:
        return Problem(message=str(exc))
    return None


def _token(where: StatePaths, token_file: Path | None) -> str | Problem:
    try:
        token = token_for(where, token_file)
        person = IdentityBook(where.users).authenticate(token)
    except PilotageError as exc:
        return Problem(message=str(exc))
    if person is None:
        return Problem(
            message=f"nobody in {where.users} has the token in {token_path(where, token_file)}, or it has run out. "
            "Name your own file with --token-file, or have an admin make one with `pilotage users add`."
        )
    return person.name


def _users(where: StatePaths) -> tuple[UserFacts, ...] | Problem:
    try:
        people = IdentityBook(where.users).everyone()
    except PilotageError as exc:
        return Problem(message=str(exc))
    return tuple(UserFacts(name=each.name, is_admin=Role.ADMIN in each.roles) for each in people)


def _running(where: StatePaths) -> str:
    try:
        return runner_of(where) or ""
    except PilotageError:
        return ""  # the check of the state directory says why


def _mode(where: StatePaths, settings: Settings) -> ModeFacts | Problem:
    try:
        if not where.ledger.exists():
            mode = settings.mode
            return ModeFacts(mode=mode or FIRST, source="configured" if mode else "at the first start")
        with reading_ledger(where) as ledger:
            switch = ModeSwitch(ledger, settings.mode, lambda: datetime.now(UTC))
            now = ledger.mode()
            if _running(where) and now is not None:
                return ModeFacts(mode=now, source="in force")
            return ModeFacts(mode=switch.mode(), source=switch.source)
    except PilotageError as exc:
        return Problem(message=str(exc))


def _policies(where: StatePaths, settings: Settings) -> PolicyFacts | Problem:
    try:
        bundle = Bundle.load(settings.policies, guardrails=settings.guardrails)
        in_force = ""
        if where.ledger.exists():
            with reading_ledger(where) as ledger:
                last = ledger.in_force()
                in_force = last.bundle if last else ""
    except PilotageError as exc:
        return Problem(message=str(exc))
    return PolicyFacts(configured=bundle.hash, in_force=in_force, resume_votes=bundle.guardrails.resume_votes)


async def _webhook(settings: Settings, *, send_test: bool) -> WebhookFacts:
    url = settings.webhook_url.get_secret_value()
    try:
        channels = channels_of(settings.pages)
    except ConfigError as error:
        return WebhookFacts(configured=True, problem=str(error))
    there = bool(url or channels)
    if not there or not send_test:
        return WebhookFacts(configured=there)
    notifier = Notifier(
        webhook_url=url,
        routing_key=settings.webhook_routing_key.get_secret_value(),
        channels=channels,
    )
    for event_action in ("trigger", "resolve"):
        answer = await notifier.page(
            event_action,
            incident_id="pilotage-doctor",
            run_id="",
            summary="pilotage doctor: a test, which is resolved at once; nothing is wrong",
            severity=Severity.INFO,
            details={"test": True, "broken": "pilotage doctor", "class": "test"},
            teams=frozenset(settings.pages.channels),
        )
        if not answer.ok:
            return WebhookFacts(configured=True, tried=True, problem=answer.problem)
    return WebhookFacts(configured=True, tried=True)


async def _model(llm: LLMSettings) -> ModelFacts:
    if not llm.configured:
        return ModelFacts(configured=False)
    endpoint = (llm.base_url or OPENAI).rstrip("/")
    key = llm.api_key.get_secret_value()
    shown = redact(endpoint)
    problem = ""
    models: tuple[str, ...] = ()
    try:
        async with httpx.AsyncClient(timeout=10) as client:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            answer = await client.get(f"{endpoint}/models", headers=headers)
        if answer.status_code in (401, 403):
            problem = f"it refuses the key (HTTP {answer.status_code})"
        elif answer.status_code >= 500:
            problem = f"it answers HTTP {answer.status_code}"
        elif answer.is_success:
            models = tuple(str(each["id"]) for each in answer.json()["data"])
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        problem = f"no answer ({type(exc).__name__})"
    except (ValueError, KeyError, TypeError):
        models = ()  # it answers, and lists its models in a way of its own or not at all
    return ModelFacts(configured=True, endpoint=shown, name=llm.model, problem=problem, models=models)


async def _server() -> tuple[str | Problem, ServerFacts | Problem, bool]:
    """The address, what the server says, and whether it refuses the credential."""
    try:
        reader = ServerReader.from_prefect_settings()
    except PilotageError as exc:
        problem = Problem(message=str(exc))
        return problem, problem, False
    url = redact(reader.api_url)
    async with reader.opened():
        try:
            async with asyncio.timeout(PATIENCE):
                version = await reader.version()
                if why := unfit(version):
                    return (
                        url,
                        Problem(message=f"{why}. Use a server from {OLDEST_SERVER} to {NEWEST_TRIED}."),
                        False,
                    )
                return url, await reader.read(version), False
        except KeyRefusedError:
            return (
                url,
                Problem(
                    message="the server is there and refuses the credential. "
                    "Set PREFECT_API_AUTH_STRING or PREFECT_API_KEY to what the server was started with."
                ),
                True,
            )
        except TimeoutError:
            return (
                url,
                Problem(message=f"no answer within {PATIENCE:.0f} s. Look at the server's log."),
                False,
            )
        except PilotageError as exc:
            reason = str(exc).removesuffix(" It will be asked again.")
            return url, Problem(message=reason), False
