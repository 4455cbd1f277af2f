"""Settings of signing in through a team's identity provider (OpenID Connect)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from pilotage.policies.identity.claims import RULE, ClaimRules

Rules = tuple[Annotated[str, Field(pattern=f"^{RULE.pattern}$")], ...]
_LOOPBACK = ("http://127.0.0.1", "http://localhost", "http://[::1]")


class OidcSettings(BaseModel):
    """The provider, and whom its claims make here."""

    model_config = ConfigDict(extra="forbid")

    issuer: str = ""
    """The provider's address, below which `/.well-known/openid-configuration` is; empty for none."""
    client_id: str = ""
    """What the provider calls this installation."""
    client_secret: SecretStr = SecretStr("")
    """The secret that goes with it; set it as the environment's `PILOTAGE_OIDC__CLIENT_SECRET`."""
    redirect_url: str = ""
    """The page's own address, ending in `/api/sign-in/oidc/callback`, as the provider knows it."""
    scope: str = "openid email profile"
    """What is asked of the provider; some want `groups` here."""
    name_claim: Literal["email", "preferred_username", "upn"] = "email"
    """The claim that is a person's name here. An address must be verified."""
    roles: dict[Literal["viewer", "operator", "approver", "admin"], Rules] = Field(default_factory=dict)
    """By role the rules `claim=value` of which one must hold, such as `groups=data-oncall`."""
    teams: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,80}$")], Rules] = Field(default_factory=dict)
    """The same by team."""

    @model_validator(mode="after")
    def _whole_or_not_at_all(self) -> Self:
        if not self.issuer:
            return self
        for name in ("issuer", "redirect_url"):
            if not getattr(self, name).startswith(("https://", *_LOOPBACK)):
                raise ValueError(f"`{name}` must begin with https://, or be on loopback")
        if not self.redirect_url.endswith("/api/sign-in/oidc/callback"):
            raise ValueError("`redirect_url` must end in /api/sign-in/oidc/callback")
        if not self.client_id or not self.roles:
            raise ValueError("an issuer needs `client_id` and at least one of `roles`")
        if "openid" not in self.scope.split():
            raise ValueError("`scope` must have openid")
        return self

    @property
    def rules(self) -> ClaimRules:
        """The mapping of claims."""
        roles = {str(role): ways for role, ways in self.roles.items()}
        return ClaimRules(name_claim=self.name_claim, roles=roles, teams=self.teams)
