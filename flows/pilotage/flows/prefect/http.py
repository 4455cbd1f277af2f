"""Sends requests to Prefect's REST API: the connection, retries while the server is busy, and what an error means.

Everything foreign is turned into `OrchestratorError` here and nowhere else.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Self, TypeVar
from uuid import uuid4

import httpx

from pilotage.flows.prefect.guard import READING, Guard, hooks_of
from pilotage.flows.prefect.stopping import current_token, is_write
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.prefect.answers import AnswerTimes
from pilotage.telemetry.prefect.pace import Pace
from pilotage.telemetry.prefect.servers import NEWEST_TRIED, OLDEST_SERVER, USER_AGENT
from pilotage.telemetry.times import utc_now

T = TypeVar("T")

TRIES = 6
"""With waits of 0.1 s to 3.2 s that has been enough for what passes."""
FIRST_WAIT = 0.1
INSIST = 30.0
"""Seconds in which a write that lost a race is sent again, which counts as no try. Prefect reads before it writes, and
SQLite gives up at once when somebody else writes in between; beside a thousand due runs one in a hundred gets through."""
_RACE_WAIT = 0.1
_WORTH_ANOTHER_TRY = frozenset({408, 425, 429, 500, 502, 503, 504})


class PrefectHttpClient:
    """A connection to Prefect's REST API, for one event loop at a time."""

    def __init__(
        self,
        api_url: str,
        *,
        auth_string: str = "",
        api_key: str = "",
        headers: Mapping[str, str] | None = None,
        verify: Any = True,
        transport: httpx.AsyncBaseTransport | None = None,
        first_wait: float = FIRST_WAIT,
        clock: Callable[[], datetime] = utc_now,
        guard: Guard | None = READING,
    ) -> None:
        """`clock` says the time to everything that steers Prefect through this connection.

        `guard` looks at each request before it is sent; None lets everything through, for worlds of one's own.
        """
        self.api_url = api_url.rstrip("/")
        self._first_wait = first_wait
        self.answers = AnswerTimes()
        """Is told how long each request took, each try counted by itself."""
        self.pace = Pace()
        """Says when the next request may go."""
        self.now = clock
        """The time, aware, in UTC: what is due, and how long ago something was, is reckoned by it."""
        sent = {**(headers or {}), "User-Agent": USER_AGENT}
        user, _, password = auth_string.partition(":")
        if api_key and not auth_string:
            sent["Authorization"] = f"Bearer {api_key}"
        self._client = httpx.AsyncClient(
            base_url=self.api_url,
            auth=(user, password) if auth_string else None,
            headers=sent,
            verify=verify,
            transport=transport,
            timeout=httpx.Timeout(30, connect=5),
            follow_redirects=True,
            event_hooks=hooks_of(guard, self.api_url) if guard else None,
        )

    @classmethod
    def from_prefect_settings(
        cls, *, clock: Callable[[], datetime] = utc_now, guard: Guard | None = READING
    ) -> Self:
        """The API of the active Prefect profile and environment. Raises OrchestratorError without one."""
        from prefect.settings import get_current_settings  # takes two seconds to import

        settings = get_current_settings()
        if not settings.api.url:
            raise OrchestratorError(
                "Looking for the Prefect server: neither PREFECT_API_URL nor the active profile names one. "
                "Set PREFECT_API_URL, or run `prefect config set PREFECT_API_URL=…`."
            )
        secret, key = settings.api.auth_string, settings.api.key
        return cls(
            settings.api.url,
            auth_string=secret.get_secret_value() if secret else "",
            api_key=key.get_secret_value() if key else "",
            headers=settings.client.custom_headers,
            verify=not settings.api.tls_insecure_skip_verify,
            clock=clock,
            guard=guard,
        )

    @classmethod
    def sharing(cls, other: PrefectHttpClient) -> Self:
        """Return these routes over the connection of another client, which closes it."""
        made = cls.__new__(cls)
        made.__dict__.update(other.__dict__)
        return made

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    @property
    def ui_url(self) -> str:
        """Where people look: a server of one's own serves its UI beside the API."""
        return self.api_url.removesuffix("/api")

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        """The API itself, closed at the end."""
        try:
            yield self
        finally:
            await self.close()

    async def _read(self, method: str, route: str, parse: Callable[[Any], T], **sent: Any) -> T:
        answer = await self._send(method, route, **sent)
        try:
            return parse(answer.json() if answer else None)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise OrchestratorError(
                f"{method} {route}: Prefect's reply has another shape than we know ({error!r}). "
                f"Is the server a Prefect from {OLDEST_SERVER} to {NEWEST_TRIED}?"
            ) from error

    async def _send(
        self, method: str, route: str, *, none_on: tuple[int, ...] = (), **sent: Any
    ) -> httpx.Response | None:
        insisting_until = time.monotonic() + INSIST
        for attempt in range(TRIES):
            if attempt:
                wait = self._first_wait * 2 ** (attempt - 1)
                await asyncio.sleep(wait * random.uniform(0.8, 1.2))  # noqa: S311
            last = attempt == TRIES - 1
            try:
                answer = await self._ask(method, route, sent)
                while _lost_a_race(answer) and time.monotonic() < insisting_until:
                    await asyncio.sleep(_RACE_WAIT * random.uniform(0.2, 1.0))  # noqa: S311
                    answer = await self._ask(method, route, sent)
            except OrchestratorError:
                raise  # the guard's, or the kill switch's: it was not sent
            except Exception as error:
                translated = translate(error, method, route, self.api_url)
                if last or not translated.transient:
                    raise translated from error
                continue
            if answer.is_success:
                return answer
            if answer.status_code in none_on:
                return None
            if answer.status_code == httpx.codes.FORBIDDEN and "CSRF" in answer.text and not last:
                await self._fetch_csrf_token()
                continue
            refused = refusal(answer.status_code, answer.text, method, route)
            if last or not refused.transient:
                raise refused
        raise AssertionError("the last try returns or raises")

    async def _ask(self, method: str, route: str, sent: Mapping[str, Any]) -> httpx.Response:
        token = current_token() if is_write(method, route) else None
        if token is not None:
            token.pass_or_stop(method, route)
        await self.pace.act(f"{method} {route}")
        began = time.monotonic()
        try:
            answer = await self._client.request(method, route, **sent)
        except OrchestratorError:
            raise  # the guard's: nobody was asked
        except Exception as error:
            self.answers.note(time.monotonic() - began, type(error).__name__)
            raise
        self.pace.hear(answer.status_code, answer.headers)
        said = f"{method} {route}: {answer.status_code}" if answer.is_server_error else ""
        self.answers.note(time.monotonic() - began, said)
        if token is not None and answer.is_success:
            token.note(method, route, sent.get("json"))
        return answer

    async def _fetch_csrf_token(self) -> None:
        caller = self._client.headers.get("Prefect-Csrf-Client") or str(uuid4())
        answer = await self._client.get("/csrf-token", params={"client": caller})
        if answer.is_success:
            self._client.headers["Prefect-Csrf-Client"] = caller
            self._client.headers["Prefect-Csrf-Token"] = answer.json()["token"]


def _lost_a_race(answer: httpx.Response) -> bool:
    # these words are Prefect's own, for a database that was locked; those of a proxy are others
    return answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and "exception_message" in answer.text


def translate(error: Exception, method: str, route: str, api_url: str) -> OrchestratorError:
    """Our error for whatever the HTTP client raised: transient when the network was at fault."""
    match error:
        case httpx.UnsupportedProtocol() | httpx.LocalProtocolError():
            transient, advice = False, f"Is {api_url!r} the address of a Prefect API?"
        case httpx.TimeoutException():
            transient, advice = True, "The server is slow or gone; it will be asked again."
        case httpx.TransportError() | OSError():
            transient, advice = True, f"Is the Prefect server at {api_url} up? It will be asked again."
        case _:
            transient, advice = False, "This is not a fault of the network; read the cause."
    return OrchestratorError(
        f"{method} {route}: {type(error).__name__}: {error}. {advice}", transient=transient
    )


def refusal(status: int, text: str, method: str, route: str) -> OrchestratorError:
    """Our error for an HTTP status that is none of success: transient when another try may be answered."""
    match status:
        case 401 | 403:
            advice = "Prefect refuses our credential; check PREFECT_API_AUTH_STRING or PREFECT_API_KEY."
        case 404:
            advice = "It does not exist, or was deleted."
        case 422:
            advice = (
                "Prefect does not understand what we sent; is the server a Prefect "
                f"from {OLDEST_SERVER} to {NEWEST_TRIED}?"
            )
        case _ if status in _WORTH_ANOTHER_TRY:
            advice = "The server is busy or unwell; it will be asked again."
        case _:
            advice = "Read the server's log."
    return OrchestratorError(
        f"{method} {route}: Prefect answered {status}: {text[:300]}. {advice}",
        transient=status in _WORTH_ANOTHER_TRY,
    )


def each_of(read: Callable[[Mapping[str, Any]], T]) -> Callable[[Any], tuple[T, ...]]:
    return lambda reply: tuple(read(each) for each in reply)
