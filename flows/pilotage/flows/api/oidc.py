"""Signing in through a team's identity provider: OpenID Connect's authorization code flow with PKCE, through authlib.

The controller asks the provider itself and verifies what it says; the page only carries the browser there and back.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pilotage.flows.api.client import ApiRejection
from pilotage.flows.api.login import LASTS, Noted
from pilotage.flows.config.oidc import OidcSettings
from pilotage.policies.identity.claims import identity_from
from pilotage.policies.identity.users import IdentityBook
from pilotage.policies.types import Identity
from pilotage.telemetry.errors import ConfigError

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("pilotage.desk")

WITHIN = timedelta(minutes=10)
"""For a person to sign in at the provider."""
MOST_WAITING = 1000
"""Begun and not finished at once; the oldest gives way."""
PATIENCE = 10.0
"""Seconds for one answer of the provider."""
BELIEVED = timedelta(minutes=5)
"""How long it is not asked again where its routes are."""
MOST_NOTED = 60
"""Failed tries of strangers that become rows within a minute; what comes on top is a line in the log."""
_ASKED = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")
LEEWAY = 60
"""Seconds by which the provider's clock may differ."""
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that are believed: none without a key of the provider's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    nonce: str
    verifier: str
    until: datetime


class _NotVouchedFor(ApiRejection):
    """Nobody is signed in; `subject` is whom the provider named, if it came to that."""

    def __init__(self, why: str, subject: str = "") -> None:
        super().__init__("not-vouched-for", f"Signing in: {why}")
        self.subject = subject


class OidcSignIn:
    """Sends browsers to the provider and believes what it signs."""

    def __init__(
        self,
        settings: OidcSettings,
        book: IdentityBook,
        clock: Callable[[], datetime],
        note: Noted,
        *,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`note` writes the sign-in log; `transport` carries requests to the provider, None for the network."""
        self._settings = settings
        self._book = book
        self._clock = clock
        self._note = note
        self._transport = transport
        self._begun: dict[str, _Begun] = {}
        self._said: tuple[dict[str, str], datetime] = {}, clock()
        """What the provider said of itself, and until when that is believed."""
        self._one_at_a_time = asyncio.Lock()
        self._noted: deque[datetime] = deque(maxlen=MOST_NOTED)

    async def offered(self) -> dict[str, bool]:
        """`{oidc}`: whether there is a provider to sign in by."""
        return {"oidc": bool(self._settings.issuer)}

    async def begin(self) -> dict[str, str]:
        """`{url, state}`: where the browser goes, and what it must bring back. Raises ApiRejection."""
        if not self._settings.issuer:
            raise ApiRejection("no-provider", "Signing in: no identity provider is set (oidc.issuer).")
        now = self._clock()
        self._begun = {state: begun for state, begun in self._begun.items() if begun.until > now}
        while len(self._begun) >= MOST_WAITING:
            del self._begun[next(iter(self._begun))]
        nonce, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)

        def address() -> tuple[str, str]:
            with self._client() as client:
                where = self._provider(client)["authorization_endpoint"]
                url, state = client.create_authorization_url(where, nonce=nonce, code_verifier=verifier)
                return str(url), str(state)

        url, state = await asyncio.to_thread(self._asked, address)
        self._begun[state] = _Begun(nonce=nonce, verifier=verifier, until=now + WITHIN)
        return {"url": url, "state": state}

    async def finish(self, state: str, code: str) -> dict[str, Any]:
        """`{token, until}` for what the browser brought back, once.

        An empty state stands for a browser that did not begin it, an empty code for a provider that said no. Raises
        ApiRejection `not-vouched-for`, which is a row of the sign-in log.
        """
        try:
            who, token = await self._signed_in(str(state), str(code))
        except _NotVouchedFor as exc:
            await self._note_failure(exc)
            raise
        await self._note("signed_in", who.name, "oidc", roles=sorted(who.roles), teams=sorted(who.teams))
        return {"token": token, "until": (self._clock() + LASTS).isoformat()}

    async def _signed_in(self, state: str, code: str) -> tuple[Identity, str]:
        begun = self._begun.pop(state, None)
        if begun is None or begun.until <= self._clock():
            raise _NotVouchedFor("this was not begun here, or took too long. Begin again.")
        if not code:
            raise _NotVouchedFor("the identity provider said no. Begin again.")
        async with self._one_at_a_time:
            claims = await asyncio.to_thread(self._asked, lambda: self._claims(code, begun))
            who = identity_from(claims, self._settings.rules)
            if isinstance(who, str):
                subject = str(claims.get(self._settings.name_claim) or claims.get("sub"))[:200]
                raise _NotVouchedFor(f"{who}.", subject)
            try:
                return who, await asyncio.to_thread(self._book.sign_in_federated, who, LASTS)
            except ConfigError as exc:
                raise _NotVouchedFor(str(exc)) from exc

    async def _note_failure(self, failure: _NotVouchedFor) -> None:
        now, noted = self._clock(), self._noted
        if len(noted) == MOST_NOTED and now - noted[0] < timedelta(minutes=1):
            log.warning("more sign-ins fail than are written down: %s", failure)
            return
        noted.append(now)
        await self._note("sign_in_failed", failure.subject, "oidc", why=str(failure))

    def _claims(self, code: str, begun: _Begun) -> Mapping[str, Any]:
        """What the provider signed about whom the code stands for."""
        from authlib.oidc.core import CodeIDToken  # start-up time
        from joserfc import jwt
        from joserfc.jwk import KeySet

        with self._client() as client:
            provider = self._provider(client)
            reply = client.fetch_token(
                provider["token_endpoint"],
                code=code,
                code_verifier=begun.verifier,
                grant_type="authorization_code",
            )
            # a plain request: whoever fetches keys needs no token
            keys = client.request("GET", provider["jwks_uri"], withhold_token=True).raise_for_status().json()
        signed = jwt.decode(reply["id_token"], KeySet.import_key_set(keys), algorithms=list(ALGORITHMS))
        claims = CodeIDToken(
            signed.claims,
            signed.header,
            options={
                "iss": {"essential": True, "value": provider["issuer"]},
                "aud": {"essential": True, "value": self._settings.client_id},
                "nonce": {"essential": True, "value": begun.nonce},
            },
            params={"nonce": begun.nonce, "client_id": self._settings.client_id},
        )
        claims.validate(now=int(self._clock().timestamp()), leeway=LEEWAY)
        return dict(claims)

    def _provider(self, client: Any) -> dict[str, str]:
        """What the provider says of itself, which must be what it is asked as."""
        said, until = self._said
        if said and self._clock() < until:
            return said
        issuer = self._settings.issuer.rstrip("/")
        route = f"{issuer}/.well-known/openid-configuration"
        reply = client.request("GET", route, withhold_token=True).raise_for_status().json()
        if str(reply["issuer"]).rstrip("/") != issuer:
            raise ValueError(f"it calls itself {reply['issuer']}")
        said = {name: str(reply[name]) for name in _ASKED}
        self._said = said, self._clock() + BELIEVED
        return said

    def _client(self) -> Any:
        from authlib.integrations.httpx_client import OAuth2Client  # start-up time

        return OAuth2Client(
            client_id=self._settings.client_id,
            client_secret=self._settings.client_secret.get_secret_value() or None,
            scope=self._settings.scope,
            redirect_uri=self._settings.redirect_url,
            code_challenge_method="S256",
            timeout=PATIENCE,
            transport=self._transport,
        )

    def _asked(self, ask: Callable[[], Any]) -> Any:
        """What was asked of the provider. Whatever is wrong with the answer, nobody is signed in by it."""
        try:
            return ask()
        except Exception as exc:
            if isinstance(exc, ApiRejection):
                raise
            raise _NotVouchedFor(
                f"what {self._settings.issuer} answered is not to be believed, or it gave no answer "
                f"({type(exc).__name__}: {str(exc)[:200]}). Begin again; an admin looks at the settings below oidc.",
            ) from exc
