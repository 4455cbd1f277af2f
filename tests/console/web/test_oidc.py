"""Signing in by a team's identity provider: a real one on loopback, a real API, a real browser's cookies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tests.console.console_stack import ConsoleStack

from pilotage.flows.api.client import ApiClient, ApiRejection
from pilotage.flows.api.oidc import MOST_NOTED
from pilotage.flows.config.oidc import OidcSettings
from pilotage.policies.identity.claims import ClaimRules, identity_from
from pilotage.policies.types import Identity

# the provider calls deprecated functions of its own library
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
provider_mock = pytest.importorskip("oidc_provider_mock", reason="comes with the extra dev")

PEOPLE: dict[str, dict[str, Any]] = {
    "1": {"email": "olga@site.test", "email_verified": True, "groups": ["data-oncall", "staff"]},
    "2": {"email": "vic@site.test", "email_verified": True, "groups": ["staff"]},
    "3": {"email": "new@site.test", "email_verified": False, "groups": ["data-oncall"]},
    "4": {"email": "guest@site.test", "email_verified": True, "groups": ["guests"]},
}


@dataclass
class Issuer:
    """The provider."""

    url: str

    def says(self, port: ConsoleStack) -> None:
        """Make the console's API believe it."""
        port.provider._settings = OidcSettings(
            issuer=self.url,
            client_id="pilotage",
            client_secret="s",
            redirect_url=f"{port.url}/api/sign-in/oidc/callback",
            roles={"viewer": ("groups=staff",), "operator": ("groups=data-oncall",)},
            teams={"data": ("groups=data-oncall",)},
        )
        port.provider._said = {}, port.provider._clock()

    def vouches(self, url: str, subject: str) -> str:
        """Where the provider sends the browser back to after this person has signed in there."""
        answer = httpx.post(url, data={"sub": subject})
        assert answer.status_code in (302, 303), answer.text
        return answer.headers["location"]


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    people = [provider_mock.User(sub=sub, claims=claims) for sub, claims in PEOPLE.items()]
    with provider_mock.run_server_in_thread(user_claims=people, require_nonce=True) as server:
        yield Issuer(url=f"http://localhost:{server.server_port}")


@pytest.fixture
def site(port: ConsoleStack, issuer: Issuer) -> ConsoleStack:
    issuer.says(port)
    return port


@contextmanager
def signed_in(site: ConsoleStack, issuer: Issuer, subject: str) -> Iterator[httpx.Client]:
    """A browser in which this person has signed in, or whose callback was refused."""
    with site.client(None) as browser:
        browser.headers["X-Callback"] = str(_back(browser, issuer, subject))
        yield browser


def _back(browser: httpx.Client, issuer: Issuer, subject: str) -> int:
    there = browser.get("/api/sign-in/oidc", follow_redirects=False)
    assert there.status_code == 303, there.text
    return browser.get(issuer.vouches(there.headers["location"], subject), follow_redirects=False).status_code


def log_of(site: ConsoleStack) -> list[tuple[str, str, Mapping[str, Any]]]:
    steps = ("signed_in", "sign_in_failed", "sessions_ended")
    return [
        (row["step"], row["actor"], row["detail"])
        for row in site.ledger.entries(0, 10_000)
        if row["step"] in steps
    ]


def test_a_person_whom_the_provider_vouches_for_has_the_roles_that_its_claims_map_to(
    site: ConsoleStack, issuer: Issuer
) -> None:
    with signed_in(site, issuer, "1") as browser:
        assert browser.headers["X-Callback"] == "303"
        me = browser.get("/api/me").json()
        assert (me["name"], me["roles"]) == ("olga@site.test", ["operator", "viewer"])
        asked = browser.post("/api/stop", json={"reason": "drill"}, headers={"X-CSRF-Token": me["csrf"]})
        assert asked.status_code == 200, asked.text
    with signed_in(site, issuer, "2") as browser:
        me = browser.get("/api/me").json()
        assert me["roles"] == ["viewer"]
        refused = browser.post("/api/resume", headers={"X-CSRF-Token": me["csrf"]})
        assert refused.status_code == 403
    assert ("signed_in", "olga@site.test") in [row[:2] for row in log_of(site)]
    assert site.ledger.stopped().by == "olga@site.test"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("subject", "why"),
    [("3", "not verified the address"), ("4", "no claim gives a role"), ("5", "not verified the address")],
)
def test_whom_no_claim_makes_anybody_is_nobody_and_is_in_the_log(
    site: ConsoleStack, issuer: Issuer, subject: str, why: str
) -> None:
    with signed_in(site, issuer, subject) as browser:
        assert browser.headers["X-Callback"] == "401"
        assert browser.get("/api/me").status_code == 401
    step, _, detail = log_of(site)[-1]
    assert step == "sign_in_failed"
    assert why in detail["why"]


def test_a_name_of_the_users_file_is_nobodys_from_elsewhere(site: ConsoleStack, issuer: Issuer) -> None:
    site.book.add("vic@site.test", roles=("approver",))
    with signed_in(site, issuer, "2") as browser:
        assert browser.headers["X-Callback"] == "401"
    assert "has that name already" in log_of(site)[-1][2]["why"]
    # and a session from before loses its name to whoever gets it later
    with signed_in(site, issuer, "1") as browser:
        assert browser.get("/api/me").status_code == 200
        site.book.add("olga@site.test", roles=("viewer",))
        token = next(iter(site.sessions._open.values())).user.token
        assert site.book.authenticate(token) is None


def test_an_answer_is_taken_from_the_browser_that_asked_and_once(site: ConsoleStack, issuer: Issuer) -> None:
    with site.client(None) as mine, site.client(None) as other:
        there = mine.get("/api/sign-in/oidc", follow_redirects=False)
        back = issuer.vouches(there.headers["location"], "1")
        assert (
            other.get(back, follow_redirects=False).status_code == 401
        )  # no cookie: somebody sent this link
        other.get("/api/sign-in/oidc", follow_redirects=False)
        assert other.get(back, follow_redirects=False).status_code == 401  # the cookie of another state
        cookie = there.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert mine.get(back, follow_redirects=False).status_code == 303
        mine.cookies.set("pilotage_sign_in", parse_qs(urlsplit(back).query)["state"][0])
        assert mine.get(back, follow_redirects=False).status_code == 401


def failures(site: ConsoleStack) -> list[str]:
    """Why each failed sign-in of the log failed."""
    return [detail["why"] for step, _, detail in log_of(site) if step == "sign_in_failed"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"state": "forged"}, "was not begun here"),
        ({"state": ""}, "was not begun here"),
        ({"code": ""}, "the identity provider said no"),
        ({"error": "access_denied"}, "the identity provider said no"),
        ({"code": "forged"}, "not to be believed"),
    ],
    ids=["forged state", "no state", "no code", "provider said no", "forged code"],
)
def test_a_callback_that_signs_nobody_in_is_a_row_of_the_sign_in_log(
    site: ConsoleStack, issuer: Issuer, change: dict[str, str], why: str
) -> None:
    with site.client(None) as browser:
        there = browser.get("/api/sign-in/oidc", follow_redirects=False)
        back = urlsplit(issuer.vouches(there.headers["location"], "1"))
        given = {name: values[0] for name, values in parse_qs(back.query).items()} | change
        assert browser.get(back.path, params=given, follow_redirects=False).status_code == 401
        assert browser.get("/api/me").status_code == 401
    (told,) = failures(site)
    assert why in told


def test_a_state_that_the_browser_was_not_given_is_a_row_and_stays_open_to_whoever_was(
    site: ConsoleStack, issuer: Issuer
) -> None:
    with site.client(None) as mine, site.client(None) as other:
        there = mine.get("/api/sign-in/oidc", follow_redirects=False)
        back = issuer.vouches(there.headers["location"], "1")
        assert other.get(back, follow_redirects=False).status_code == 401
        assert len(failures(site)) == 1
        assert mine.get(back, follow_redirects=False).status_code == 303


def test_a_stranger_who_forges_callbacks_does_not_fill_the_log(
    site: ConsoleStack, caplog: pytest.LogCaptureFixture
) -> None:
    async def many() -> None:
        for _ in range(MOST_NOTED + 5):
            with pytest.raises(ApiRejection):
                await site.provider.finish("forged", "code")

    asyncio.run(many())
    assert len(failures(site)) == MOST_NOTED
    assert "more sign-ins fail than are written down" in caplog.text


def test_the_way_by_a_provider_is_offered_only_where_there_is_one(port: ConsoleStack, issuer: Issuer) -> None:
    with port.client(None) as browser:
        assert browser.get("/api/sign-in/ways").json() == {"oidc": False}
        issuer.says(port)
        assert browser.get("/api/sign-in/ways").json() == {"oidc": True}


def test_a_code_of_another_nonce_client_or_key_signs_nobody_in(site: ConsoleStack, issuer: Issuer) -> None:
    control = ApiClient(site.paths.api_socket, "")

    def attempt(change: Callable[[str], None]) -> str:
        begun = control.call("oidc_begin")
        code = parse_qs(urlsplit(issuer.vouches(begun["url"], "1")).query)["code"][0]
        change(begun["state"])
        with pytest.raises(ApiRejection) as refusal:
            control.call("oidc_finish", state=begun["state"], code=code)
        return str(refusal.value)

    def another_nonce(state: str) -> None:
        begun = site.provider._begun[state]
        site.provider._begun[state] = replace(begun, nonce="another")

    def another_client(state: str) -> None:
        site.provider._settings = site.provider._settings.model_copy(update={"client_id": "somebody else"})

    def another_key(state: str) -> None:
        issuer.says(site)
        said = site.provider._provider(site.provider._client())
        elsewhere = {**said, "jwks_uri": f"{issuer.url}/.well-known/openid-configuration"}
        site.provider._said = elsewhere, site.provider._clock() + timedelta(minutes=1)

    for change in (another_nonce, another_client, another_key):
        assert "not to be believed" in attempt(change), change.__name__
    assert not site.book.sessions()


def test_a_provider_that_is_away_or_calls_itself_otherwise_signs_nobody_in(
    site: ConsoleStack, issuer: Issuer
) -> None:
    control = ApiClient(site.paths.api_socket, "")
    for wrong in ("http://127.0.0.1:1", issuer.url.replace("localhost", "127.0.0.1") + "/x"):
        site.provider._settings = site.provider._settings.model_copy(update={"issuer": wrong})
        with pytest.raises(ApiRejection) as refusal:
            control.call("oidc_begin")
        assert refusal.value.kind == "not-vouched-for"
    site.provider._settings = OidcSettings()
    with site.client(None) as browser:
        assert browser.get("/api/sign-in/oidc").status_code == 404


def test_sessions_are_ended_by_an_admin_or_by_whose_they_are(site: ConsoleStack, issuer: Issuer) -> None:
    admin = ApiClient(site.paths.api_socket, site.tokens["pat"])
    with signed_in(site, issuer, "1") as olga, signed_in(site, issuer, "2") as vic:
        assert olga.get("/api/me").status_code == vic.get("/api/me").status_code == 200
        (hers,) = [each for each in admin.call("sessions") if each["name"] == "olga@site.test"]
        assert (hers["how"], hers["roles"], hers["teams"]) == ("oidc", ["operator", "viewer"], ["data"])
        tokens = {each.user.name: each.user.token for each in site.sessions._open.values()}
        vics = ApiClient(site.paths.api_socket, tokens["vic@site.test"])
        assert [each["name"] for each in vics.call("sessions")] == ["vic@site.test"]
        with pytest.raises(ApiRejection, match=r"only olga@site\.test or an admin"):
            vics.call("end_sessions", name="olga@site.test")
        assert admin.call("end_sessions", name="olga@site.test", session_id=hers["id"]) == {"ended": 1}
        assert site.book.authenticate(tokens["olga@site.test"]) is None
        assert site.book.current_identity("olga@site.test") is None  # nor does an earlier vote count
        assert vics.call("end_sessions", name="vic@site.test") == {"ended": 1}
        assert site.book.authenticate(tokens["vic@site.test"]) is None
    ended = [(actor, detail["of"]) for step, actor, detail in log_of(site) if step == "sessions_ended"]
    assert ended == [("pat", "olga@site.test"), ("vic@site.test", "vic@site.test")]


def test_passwords_are_in_the_sign_in_log_too_and_what_was_typed_for_a_name_is_not(
    port: ConsoleStack,
) -> None:
    port.book.set_password("ann", "correct horse battery")
    with port.client(None) as browser:
        assert browser.post("/api/sign-in", json={"name": "ann", "password": "wrong"}).status_code == 401
        assert browser.post("/api/sign-in", json={"name": "hunter2!", "password": "x"}).status_code == 401
        good = browser.post("/api/sign-in", json={"name": "ann", "password": "correct horse battery"})
        assert good.status_code == 200
    assert [row[:2] for row in log_of(port)] == [
        ("sign_in_failed", "ann"),
        ("sign_in_failed", "unknown"),
        ("signed_in", "ann"),
    ]


RULES = ClaimRules(
    name_claim="preferred_username",
    roles={
        "viewer": ("groups=staff",),
        "admin": ("realm_access.roles=ops", "https://x/roles=ops"),
        "operator": ("on_call=true",),
        "agent": ("groups=staff",),
    },
    teams={"data": ("dept=data",)},
)


@pytest.mark.parametrize(
    ("claims", "roles", "teams"),
    [
        ({"groups": "staff"}, {"viewer"}, set()),
        ({"groups": ["staff", "x"], "dept": "data"}, {"viewer"}, {"data"}),
        ({"realm_access": {"roles": ["ops"]}}, {"admin"}, set()),
        ({"https://x/roles": ["ops"]}, {"admin"}, set()),
        ({"on_call": True}, {"operator"}, set()),
        ({"groups": ["staffing", "Staff", " staff"]}, None, None),
        ({"groups": {"staff": True}}, None, None),
        ({"groups": [["staff"]]}, None, None),
        ({"realm_access": "roles"}, None, None),
        ({}, None, None),
    ],
)
def test_claims_make_whom_the_mapping_says_and_nobody_else(
    claims: dict[str, Any], roles: set[str] | None, teams: set[str] | None
) -> None:
    who = identity_from({"preferred_username": "ann", **claims}, RULES)
    if roles is None:
        assert isinstance(who, str)
    else:
        assert who == Identity(name="ann", kind="user", roles=frozenset(roles), teams=frozenset(teams or ()))


@pytest.mark.parametrize("name", ["", "ann x", "-ann", "a" * 81, "аnn", None, 7, ["ann"]])
def test_a_name_that_could_not_stand_in_the_users_file_is_none(name: Any) -> None:
    assert isinstance(identity_from({"preferred_username": name, "groups": ["staff"]}, RULES), str)


def _later(now: datetime, hours: int) -> datetime:
    return now + timedelta(hours=hours)


def test_an_older_session_has_no_role_that_a_newer_sign_in_lost(port: ConsoleStack) -> None:
    before = Identity(name="zoe@site.test", kind="user", roles=frozenset({"admin"}))
    token = port.book.sign_in_federated(before, timedelta(hours=8))
    now = Identity(name="zoe@site.test", kind="user", roles=frozenset({"viewer"}))
    port.book.sign_in_federated(now, timedelta(hours=8))
    assert port.book.authenticate(token) == now


def test_votes_of_somebody_from_elsewhere_count_for_a_day_and_no_longer(port: ConsoleStack) -> None:
    who = Identity(name="zoe@site.test", kind="user", roles=frozenset({"approver"}))
    now, clock = port.book._clock(), port.book._clock
    try:
        port.book.sign_in_federated(who, timedelta(hours=8))
        for hours, known in ((9, True), (31, True), (33, False)):
            port.book._clock = partial(_later, now, hours)
            assert (port.book.current_identity("zoe@site.test") is not None) is known
    finally:
        port.book._clock = clock


def test_begun_and_never_finished_takes_no_room_without_end(
    site: ConsoleStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotage.flows.api.oidc.MOST_WAITING", 3)

    async def many() -> None:
        for _ in range(6):
            await site.provider.begin()

    asyncio.run(many())
    assert len(site.provider._begun) == 3
