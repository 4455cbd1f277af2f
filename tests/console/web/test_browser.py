"""The page in a real browser, beside a real `pilotage up` on a real Prefect server, with a scripted language model.

They run in the order of this file on two browsers, because starting everything is what takes the time; each test
makes the runs that it needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.states import Failed, Pending, Running
from selenium.webdriver.common.keys import Keys
from tests.conftest import PrefectServer
from tests.console.browser import Page, chromium, needs_browser, serving
from tests.flows.conftest import PrefectProbe
from tests.flows.running_controller import SCRIPTED_MODEL, RunningController, eventually, running_controller
from tests.telemetry.harmless_cases import CASES

from pilotage.planner.llm.scripted.demo_replies import demo_script
from pilotage.planner.llm.scripted.server import ScriptedLLM
from pilotage.policies.identity.users import IdentityBook

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(900)]
PASSWORD = "a word that nobody guesses"
VIEWS = ("now", "chat/new", "chat/floor", "inbox", "incidents", "runs", "queues", "forecast", "kpi", "audit")
REFUSED = "Failed to load resource"
"""What a browser says of every answer that is not 200; who is refused on purpose knows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Two browsers on one console."""

    ship: RunningController
    prefect_probe: PrefectProbe
    first: Page
    second: Page
    link: str

    def fail(self, flow: str, message: str = "ConnectError: refused", name: str = "") -> str:
        """A run that went wrong without any worker, and whose retry waits for a person."""

        async def rename(client: PrefectClient) -> None:
            await client.update_flow_run(UUID(run_id), name=name)

        run_id = self.prefect_probe.start(f"{flow}/demo", at=datetime.now(UTC) + timedelta(hours=6))
        if name:
            self.prefect_probe.do(rename)
        self.prefect_probe.move(run_id, Pending(), Running(), Failed(message=message))
        return run_id

    def waiting(self, run_id: str) -> dict[str, Any]:
        """The proposal about the run that waits for a person."""

        def look() -> dict[str, Any] | None:
            found = self.ship.proposals_on(run_id)
            return next((row for row in found if row["status"] == "needs_approval"), None)

        return eventually(look, within=120, what="a proposal that waits for a person")

    def status(self, proposal_id: str) -> str:
        """Where the proposal stands."""
        return str(self.ship.control_api().call("proposal", proposal_id=proposal_id)["status"])


@pytest.fixture(scope="session", autouse=True)
def _browser_is_here() -> None:
    """Before any server is started for nothing."""
    needs_browser()


@pytest.fixture(scope="module")
def scene(
    _browser_is_here: None,
    prefect_probe: PrefectProbe,
    prefect_server: PrefectServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scene]:
    root = tmp_path_factory.mktemp("p")
    with (
        ScriptedLLM(demo_script) as llm,
        running_controller(
            root,
            prefect_server.env,
            mode="approve",
            settings=SCRIPTED_MODEL.format(url=llm.base_url),
            forked=prefect_server.embedded,
        ) as ship,
    ):
        book = IdentityBook(ship.paths.users)
        for name in ("pat", "ann", "vic"):
            book.set_password(name, PASSWORD)
        with (
            serving(ship, {}) as served,
            chromium(served.base, tmp_path_factory.mktemp("c1")) as first,
            chromium(served.base, tmp_path_factory.mktemp("c2")) as second,
        ):
            yield Scene(ship=ship, prefect_probe=prefect_probe, first=first, second=second, link=served.link)


@pytest.fixture
def ann(scene: Scene) -> Page:
    """The first browser, with an approver in it."""
    scene.first.be("ann", PASSWORD)
    return scene.first


@pytest.fixture
def vic(scene: Scene) -> Page:
    """The second browser, with a viewer in it."""
    scene.second.be("vic", PASSWORD)
    return scene.second


def card(proposal_id: str) -> str:
    """Where the card of a proposal is."""
    return f"article.card[data-proposal={proposal_id}]"


def lasting(page: Page) -> list[str]:
    """The words of a conversation that do not depend on who reads them nor when."""
    parts = "#log :is(.question, .tools, .prose, .evidence, .step, .card header)"
    return [str(each.text) for each in page.driver.find_elements("css selector", parts)]


def vote_by_script(page: Page, row: dict[str, Any]) -> tuple[int, str]:
    """Status and kind of refusal of a vote that the page itself does not offer."""
    script = """
        const [path, body, done] = arguments;
        fetch("/api/me").then((me) => me.json()).then((me) => fetch(path, {method: "POST", body: JSON.stringify(body),
            headers: {"Content-Type": "application/json", "X-CSRF-Token": me.csrf}}))
          .then(async (answer) => done([answer.status, (await answer.json()).error?.kind ?? ""]));
    """
    body = {"digest": row["digest"], "decision": "approve", "reason": ""}
    status, kind = page.driver.execute_async_script(script, f"/api/proposals/{row['proposal_id']}/vote", body)
    return int(status), str(kind)


def quiet(page: Page) -> None:
    """Fails the test when a script broke or the content policy was touched."""
    assert [each for each in page.complaints() if REFUSED not in each] == []


def test_from_a_question_to_a_verified_change_before_two_pairs_of_eyes(scene: Scene) -> None:
    first, second, ship = scene.first, scene.second, scene.ship
    run_id = scene.prefect_probe.start("build-features/demo", needs_mb=160)
    first.open(scene.link)
    first.live()
    assert "code=" not in first.driver.current_url
    assert scene.prefect_probe.ended(run_id, within=150).state_type == "FAILED"
    old = scene.waiting(run_id)

    # a question, a streamed answer, and what it rests on
    first.go("chat/new")
    first.say(f"why did {run_id} fail?")
    first.find(".tools li summary", "why_run")
    first.find(".turn[aria-busy=false] .prose", "Here is what the records say")
    first.find(".badge", "model")
    first.find(".badge.mock", "MOCK")
    first.find(".evidence", "why_run")
    link = first.find(".evidence a.out", "in Prefect").get_attribute("href")
    assert link == f"{scene.prefect_probe.server.ui_url}/runs/flow-run/{run_id}"
    thread = first.driver.current_url.split("#/")[1]

    # the card, with what would be different and whom it needs
    first.say(f"/show {old['proposal_id']}")
    words = first.find(card(old["proposal_id"]), "192 MiB").text
    for part in (
        "128 MiB",
        "needs approval",
        "approve-mode-needs-approver",
        "1 more approver",
        "measured forecast",
    ):
        assert part in words

    # a viewer in a second browser, with whom it is shared, sees the same, and may only look
    for name in ("vic", "ann"):
        first.say(f"/share {name}")
        first.find("#log", name)
    second.sign_in("vic", PASSWORD)
    second.go(thread)
    assert "You look on as viewer" in second.find(card(old["proposal_id"]), "192 MiB").text
    assert not second.driver.find_elements("css selector", f"{card(old['proposal_id'])} .go")
    assert vote_by_script(second, old) == (403, "vote-refused")

    # an edit is a proposal of one's own, which somebody else approves
    first.press("Edit…", card(old["proposal_id"]))
    memory = first.find("input[name=memory_mb]")
    memory.clear()
    memory.send_keys("256", Keys.ENTER)
    edited = first.find("article.card ins", "256 MiB").find_element("xpath", "ancestor::article")
    new = str(edited.get_attribute("data-proposal"))
    second.find(card(new), "256 MiB")
    first.find(f"{card(new)} .why", "You cannot approve it")
    assert not first.find(f"{card(new)} .go", "Approve").is_enabled()
    assert vote_by_script(first, ship.control_api().call("proposal", proposal_id=new)) == (
        403,
        "vote-refused",
    )
    assert scene.status(new) == "needs_approval"

    first.press("Sign out")
    first.sign_in("ann", PASSWORD)
    first.go(thread)
    first.press("Approve", card(new))

    # injected, verified, and told where it was approved: to both
    for page in (first, second):
        page.find(".step", "injected")
        page.find(".step", "verified", within=300)
        page.find(f"{card(new)} header", "verified")
    assert scene.prefect_probe.run(run_id).state_type == "COMPLETED"
    assert {row["proposal_id"]: row["status"] for row in ship.proposals_on(run_id)}[new] == "verified"

    # reloading loses nothing
    first.until(lambda: lasting(first) == lasting(second) or None, "the same words in both browsers")
    before = lasting(first)
    first.driver.refresh()
    first.live()
    first.until(lambda: lasting(first) == before or None, "the same words after reloading")
    assert first.driver.execute_script("return document.documentElement.scrollHeight <= innerHeight")
    assert "after the retry, with 256 MiB" in first.find(card(new)).text
    first.say("/clear")
    first.until(lambda: not first.text("#log") or None, "an empty screen")
    first.go(f"run/{run_id}")
    first.find("#view .pairs", "Completed")
    first.find("#view .drawing svg", "✓ completed")
    quiet(first)
    quiet(second)


def test_a_card_that_is_out_of_date_refuses_and_says_why(scene: Scene, ann: Page) -> None:
    page, row = ann, scene.waiting(scene.fail("fetch-quotes"))
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/api/stream*"]})
    try:
        page.go("inbox")
        page.driver.refresh()
        page.go(f"proposal/{row['proposal_id']}")
        page.find(card(row["proposal_id"]), "needs approval")
        asked = {"proposal_id": row["proposal_id"], "digest": row["digest"]}
        scene.ship.control_api("pat").call("vote", **asked, decision="reject", reason="not during the close")
        page.press("Approve", card(row["proposal_id"]))
        page.find(f"{card(row['proposal_id'])} .says", "out of date")
        page.find(f"{card(row['proposal_id'])} header", "rejected")
    finally:
        page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    assert scene.status(row["proposal_id"]) == "rejected"
    page.complaints()  # that the stream was blocked is what this test did


def test_the_page_shows_text_as_the_terminal_does(ann: Page) -> None:
    script = (
        "const [texts, done] = arguments; import('/assets/dom.js').then((dom) => done(texts.map(dom.plain)))"
    )
    assert ann.driver.execute_async_script(script, list(CASES)) == list(CASES.values())


def test_what_runs_write_is_never_markup_nor_a_link(scene: Scene, ann: Page) -> None:
    page = ann
    hostile = (
        '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script> [click](javascript:window.pwned=1) '
        "[here](https://evil.example/) ![pixel](https://evil.example/p.png) **ConnectError** \u202erefused"
    )
    run_id = scene.fail(
        "sync-warehouse", message=f"ConnectError: {hostile}", name="</p><b onmouseover=window.pwned=1>bold"
    )
    row = scene.waiting(run_id)
    page.driver.refresh()
    page.live()
    page.go("chat/new")
    page.say(f"why did {run_id} fail?")
    page.find(".turn[aria-busy=false] .prose", "onerror")
    toolbox = (
        "",
        f"run/{run_id}",
        f"proposal/{row['proposal_id']}",
        "incidents",
        "queues",
        "inbox",
        "chat/floor",
    )
    for view in toolbox:
        if view:
            page.go(view)
            page.find("#view h1")
            page.gone("#view p", "Reading…")
        found = page.driver.execute_script(
            "return [window.pwned ?? 0, document.querySelectorAll('#view :is(img, script, b, iframe)').length,"
            "[...document.querySelectorAll('#view a, #view svg a')].map((a) => a.getAttribute('href'))]"
        )
        assert found[:2] == [0, 0]
        away = [
            href for href in found[2] if not href.startswith(("#", f"{scene.prefect_probe.server.ui_url}/"))
        ]
        assert away == []
    assert "\u202e" not in page.driver.page_source
    quiet(page)
    scene.ship.control_api("pat").call(
        "vote", proposal_id=row["proposal_id"], digest=row["digest"], decision="reject", reason="seen enough"
    )


def test_everything_can_be_done_from_the_keyboard(scene: Scene, ann: Page) -> None:
    page, row = ann, scene.waiting(scene.fail("settle-trades"))
    page.open("/#/kpi")
    page.driver.refresh()
    page.live()

    def focused(script: str = "e.textContent") -> str:
        return str(page.driver.execute_script(f"const e = document.activeElement; return {script}"))

    page.find("h1", "Numbers")
    page.until(lambda: focused("e.tagName") == "H1" or None, "the heading to have the focus")
    for _ in range(30):
        page.keys(Keys.SHIFT + Keys.TAB)
        assert focused("getComputedStyle(e).outlineStyle") != "none", focused("e.outerHTML.slice(0, 200)")
        if focused() == "Skip to the content":
            break
    page.keys(Keys.ENTER)
    assert focused("e.id") == "view"
    page.find("h1", "Numbers")
    page.keys("g", "i")
    page.find("h1", "Inbox")
    page.find(f"li[data-row={row['proposal_id']}]")
    page.until(lambda: focused("e.tagName") == "H1" or None, "the heading to have the focus")
    page.keys("j")
    assert focused("e.tagName") == "SUMMARY"
    if focused("e.parentElement.open") == "False":
        page.keys(Keys.ENTER)
    page.find(card(row["proposal_id"]))
    for _ in range(20):
        page.keys(Keys.TAB)
        assert focused("getComputedStyle(e).outlineStyle") != "none", focused("e.outerHTML.slice(0, 200)")
        if focused() == "Reject…":
            break
    page.keys(Keys.ENTER, *"not now", Keys.ENTER)
    page.find(f"{card(row['proposal_id'])} header", "rejected")
    assert scene.status(row["proposal_id"]) == "rejected"
    page.gone(".card-form form")
    page.keys("?")
    page.find("dialog[open]", "next row or card")
    page.keys(Keys.ESCAPE)
    page.gone("dialog[open]")
    quiet(page)


def test_one_decision_over_many_leaves_out_what_was_left_out_and_tells_each_result(
    scene: Scene, ann: Page, vic: Page
) -> None:
    page = ann
    rows = [
        scene.waiting(run_id)
        for run_id in [scene.fail(flow) for flow in ("long-report", "quick-report", "nightly-close")]
    ]
    ids = [row["proposal_id"] for row in rows]
    page.go("inbox")
    page.find("h1", "Inbox")
    for each in ids:
        page.find(f"li[data-row={each}]")
    every = len(page.driver.find_elements("css selector", ".rows > li"))
    page.find(".bulk input[type=checkbox]").click()
    page.find(f"li[data-row={ids[1]}] > input").click()
    page.find(".bulk", f"{every - 1} chosen")
    page.find(".bulk input[type=text]").send_keys("the market is closed")
    page.press("Reject chosen", ".bulk")
    for each in (ids[0], ids[2]):
        page.find(".results li", each)
    assert not [
        each for each in page.driver.find_elements("css selector", ".results li") if ids[1] in each.text
    ]
    assert [scene.status(each) for each in ids] == ["rejected", "needs_approval", "rejected"]

    # what is put off is put off for oneself alone, and still after reloading
    if not page.driver.execute_script(f"return document.querySelector('[data-row={ids[1]}] details').open"):
        page.find(f"li[data-row={ids[1]}] summary").click()
    page.press("Snooze…", card(ids[1]))
    page.press("Snooze", card(ids[1]))
    page.gone(f"li[data-row={ids[1]}]")
    page.driver.refresh()
    page.find("#view p", "One is snoozed by you.")
    page.gone(f"li[data-row={ids[1]}]")
    vic.go("inbox")
    vic.find(f"li[data-row={ids[1]}]")
    quiet(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_view_fits_a_phone(ann: Page, theme: str) -> None:
    page = ann
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        page.driver.execute_script("localStorage.setItem('theme', arguments[0])", theme)
        page.driver.refresh()
        page.live()
        for view in VIEWS:
            page.go(view)
            page.find("#view h1")
            page.gone("#view p", "Reading…")
            wide = page.driver.execute_script("return document.documentElement.scrollWidth")
            assert wide <= 390, view
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    quiet(page)


def test_a_stop_shows_to_everybody_at_once(scene: Scene, ann: Page, vic: Page) -> None:
    ann.go("kpi")
    ann.press("STOP")
    ann.find("dialog input").send_keys("we are looking into it", Keys.ENTER)
    for page in (ann, vic):
        page.find("#banner", "we are looking into it")
    assert scene.ship.control_api().call("status")["stopped"]
    assert not vic.driver.find_elements("css selector", "#banner button")

    # one vote does not lift it, a second person's does
    ann.press("Vote to resume", "#banner")
    ann.press("Vote to resume", "dialog")
    ann.find("#banner", "1 more must ask")
    assert scene.ship.control_api().call("status")["stopped"]
    scene.ship.control_api("pat").call("resume")
    for page in (ann, vic):
        page.gone("#banner", "we are looking into it")
    assert not scene.ship.control_api().call("status")["stopped"]
    quiet(ann)


def test_without_a_session_nothing_is_shown(scene: Scene, vic: Page) -> None:
    page = vic
    page.press("Sign out")
    page.find("#door", "You are signed out")
    page.driver.refresh()
    page.find("#door input[name=password]")
    assert "Inbox" not in page.text()
    page.open(scene.link)
    page.find("#door .says", "The link did not sign you in")


def test_five_runs_of_one_cause_are_one_incident_decided_by_two_and_told_to_both(scene: Scene) -> None:
    first, second, ship = scene.first, scene.second, scene.ship
    first.be("pat", PASSWORD)
    second.be("ann", PASSWORD)
    runs = [scene.fail("quick-report", "ConnectError: ledger.example refused") for _ in range(5)]

    def whole() -> dict[str, Any] | None:
        page = ship.control_api().call("incident_page", words="ledger.example", state="open")
        return next((row for row in page["rows"] if row["runs"] == 5 and row["waiting"]), None)

    incident = eventually(whole, within=180, what="one incident of five runs")["incident_id"]
    found = ship.control_api().call("incident", incident_id=incident)
    assert {run["run_id"] for run in found["runs"]} == set(runs)

    # found on Now, which leads to the incident
    for page in (first, second):
        page.go("now")
        page.find("#view h1", "Now")
        page.find(f"#view a[href='#/incident/{incident}']", "ledger.example")
    first.find(f"#view a[href='#/incident/{incident}']", "ledger.example").click()
    first.find("#view h1", "ledger.example refused")
    first.find("#view .drawing svg")
    assert len(first.driver.find_elements("css selector", "#view article.card")) == 1

    # edited: the card says the edit
    old = str(first.find("#view article.card").get_attribute("data-proposal"))
    first.press("Edit…", card(old))
    delay = first.find("input[name=delay]")
    delay.clear()
    delay.send_keys("20s", Keys.ENTER)
    edited = first.find("article.card h3", "20 s").find_element("xpath", "ancestor::article")
    new = str(edited.get_attribute("data-proposal"))
    assert not first.find(f"{card(new)} .go", "Approve").is_enabled()

    # a second person approves exactly that
    second.go(f"proposal/{new}")
    second.find(card(new), "20 s")
    second.press("Approve", card(new))
    second.find(f"{card(new)} header", "verified", within=300)

    # and both see on Now what was done
    for page in (first, second):
        page.go("now")
        page.find("#view section", "promise")  # one change kept its, several theirs
        quiet(page)
