"""What channels are told: the right team, once, in words that a site may change, and nothing that may not leave."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.flows.notify.test_notifier import Receiver
from tests.flows.notify.test_pager import NEEDS, NOW, SECRET, Bench

from pilotage.flows.config.settings import PageSettings
from pilotage.flows.notify.channels import Action, Channels, Message, channels_of
from pilotage.flows.notify.notifier import Notifier
from pilotage.planner.actions.types import Severity
from pilotage.telemetry.errors import ConfigError

WORDS = {
    "summary": "etl/nightly: transient: 503; nothing is wanted yet",
    "broken": "etl/nightly",
    "class": "transient",
    "since": "2027-03-01T02:00:00+00:00",
    "next": "retry the run",
    "answer": "pilotage incident show i-000000000001",
}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def json_url(receiver: Receiver) -> str:
    return receiver.url.replace("http://", "json://")


def said(action: Action = "trigger", teams: tuple[str, ...] = ("data",), **words: Any) -> Message:
    return Message(action=action, severity=Severity.ERROR, teams=frozenset(teams), words={**WORDS, **words})


def send(channels: Channels, message: Message) -> str:
    return asyncio.run(channels.send("i-000000000001", message))


def test_a_team_is_told_of_its_own_and_those_of_everything_of_all(receiver: Receiver) -> None:
    channels = Channels(
        {"*": [json_url(receiver)], "data": [json_url(receiver)], "web": [json_url(receiver)]}
    )
    assert send(channels, said()) == ""
    assert [body["type"] for body in receiver.bodies] == ["failure", "failure"]
    assert send(channels, said("resolve", ())) == ""
    (over,) = receiver.bodies[2:]
    assert (over["type"], over["title"]) == ("success", "Over: etl/nightly: transient")


def test_every_byte_of_a_message_is_known(receiver: Receiver) -> None:
    assert send(Channels({"*": [json_url(receiver)]}), said()) == ""
    (body,) = receiver.bodies
    assert body == {
        "version": body["version"],
        "title": "etl/nightly: transient",
        "message": "etl/nightly: transient: 503; nothing is wanted yet\nSince 2027-03-01T02:00:00+00:00.\n"
        "Next: retry the run\nAnswer: pilotage incident show i-000000000001",
        "attachments": [],
        "type": "failure",
    }


@pytest.mark.parametrize(
    ("untrusted", "forbidden"),
    [
        (f"postgresql://u:{SECRET}@h/db", SECRET),
        ("<!channel> look", "<!channel>"),
        ("hey @everyone and @here", "@everyone"),
        ("a\x1b[2Jb\u202e", "\x1b"),
        ("{{ 7 * 7 }} {% for x in y %}", "49"),
    ],
    ids=[
        "a secret",
        "Slack's mention of a channel",
        "a mention of everybody",
        "control characters",
        "a template",
    ],
)
def test_what_a_run_wrote_is_only_ever_text(receiver: Receiver, untrusted: str, forbidden: str) -> None:
    assert send(Channels({"*": [json_url(receiver)]}), said(summary=untrusted, broken=untrusted)) == ""
    assert forbidden not in json.loads(json.dumps(receiver.bodies[0]))["message"]
    assert forbidden not in receiver.bodies[0]["title"]


def test_a_channel_that_did_not_take_it_gets_it_again_and_the_others_do_not(receiver: Receiver) -> None:
    other = Receiver()
    try:
        channels = Channels({"*": [json_url(receiver)], "data": [json_url(other)]})
        other.answers = [500]
        assert send(channels, said()) == "1 channel(s) of data did not take it"
        assert send(channels, said()) == ""
        assert (len(receiver.bodies), len(other.bodies)) == (1, 2)
        assert send(channels, said()) == ""
        assert (len(receiver.bodies), len(other.bodies)) == (2, 3)
    finally:
        other.close()


def test_a_site_changes_the_words(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("{{ broken | upper }} of {{ incident }}: {{ next }}")
    channels = Channels({"*": [json_url(receiver)]}, templates=tmp_path)
    assert send(channels, said(incident="i-1")) == ""
    assert receiver.bodies[0]["message"] == "ETL/NIGHTLY of i-1: retry the run"


@pytest.mark.parametrize(
    "text",
    ["{{ nonsense }}", "{% if %}", "{{ ''.__class__.__mro__ }}"],
    ids=["an unknown word", "no template", "out of the sandbox"],
)
def test_a_template_that_is_no_use_is_named_at_the_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "title.txt").write_text(text)
    with pytest.raises(ConfigError, match=r"title\.txt"):
        Channels({"*": ["json://127.0.0.1:9/"]}, templates=tmp_path)


def test_an_address_that_is_none_is_named_without_being_quoted() -> None:
    with pytest.raises(ConfigError, match="address 1 of 'data'") as refused:
        Channels({"data": [f"nonsense://{SECRET}"]})
    assert SECRET not in str(refused.value)
    assert channels_of(PageSettings()) is None


class MailServer:
    """Takes one mail after another by SMTP, and keeps what was sent."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(10)
        self.port = self._listening.getsockname()[1]
        self.mails: list[str] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except OSError:
            return
        connection.settimeout(10)
        with connection, connection.makefile("rwb") as lines:

            def answer(words: str) -> None:
                lines.write(f"{words}\r\n".encode())
                lines.flush()

            answer("220 mail")
            while word := lines.readline().split(b" ")[0].strip().upper():
                if word != b"DATA":
                    answer("221 bye" if word == b"QUIT" else "250 ok")
                    continue
                answer("354 go on")
                mail = []
                while (line := lines.readline()) not in (b".\r\n", b""):
                    mail.append(line.decode())
                self.mails.append("".join(mail))
                answer("250 taken")
                return

    def close(self) -> None:
        self._thread.join(20)
        self._listening.close()


def test_mail_is_a_channel() -> None:
    server = MailServer()
    try:
        url = f"mailto://127.0.0.1:{server.port}/?smtp=127.0.0.1&from=pilotage@example.org&to=ann@example.org&mode=insecure"
        assert send(Channels({"data": [url]}), said()) == ""
        (mail,) = server.mails
        assert "Subject: etl/nightly: transient" in mail
        assert "ann@example.org" in mail
    finally:
        server.close()


def test_an_incident_is_one_message_in_its_teams_channel_and_one_when_it_is_over(
    tmp_path: Path, receiver: Receiver
) -> None:
    bench = Bench(tmp_path)
    try:
        channels = Channels({"data": [json_url(receiver)]})
        bench.pager._notifier = Notifier(
            webhook_url=bench.receiver.url, ui_url="http://prefect.test", first_wait=0.0, channels=channels
        )
        bench.pager._event = nothing  # type: ignore[method-assign]  # Prefect is not what is tried here
        bench.fail(1, NEEDS, team="data")
        bench.fail(2, NEEDS, team="web")
        bench.keep()
        bench.keep(60)
        (page,) = receiver.bodies
        assert "approver wanted to allow: retry the run" in page["message"]
        assert "Answer: pilotage approve i-000000000001" in page["message"]
        assert "http://pilotage.test/#/incident/i-000000000001" in page["message"]
        assert "http://prefect.test/runs/flow-run/" in page["message"]
        assert SECRET not in json.dumps(receiver.bodies)
        bench.recover()
        bench.keep(1)
        assert [body["type"] for body in receiver.bodies] == ["failure", "success"]
        assert len(bench.receiver.bodies) == 4
    finally:
        bench.close()
    assert bench.now > NOW


async def nothing(incident: Any) -> int:
    return 0
