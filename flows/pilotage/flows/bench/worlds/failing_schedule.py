"""A deployment fails on a short schedule, again and again, until the other side locks its account."""

from __future__ import annotations

from pilotage.flows.bench.world import Answer, Hand, Job, Json, Request, Scene, Truth, World

EVERY = 15
RUNS = 24
LOCKED_AT = 12
"""Refused calls after which the account is locked."""


class FailingSchedule(World):
    """A wrong password every fifteen seconds."""

    name = "failing-schedule"
    about = "a deployment fails every 15 seconds; the twelfth refusal locks its account"

    def setup(self, scene: Scene) -> None:
        scene.deploy("poll-inbox", "poll", every=EVERY)

    def drive(self, scene: Scene) -> None:
        """Its schedule does it."""

    def truth(self) -> Truth:
        return Truth(
            remediable=False,
            right=frozenset({"pause_deployment", "notify_owner", "hold_queue"}),
            wrong=frozenset({"retry_run", "resize_run"}),
            tell=True,
        )

    def poll(self, job: Job) -> None:
        job.http.get("/inbox").raise_for_status()
        job.record("polled")

    def answer(self, scene: Scene, request: Request) -> Answer:
        scene.note("refused")
        if scene.count("refused") == LOCKED_AT:
            scene.harm("the account was locked by repeated refusals")
        return Answer(status=401, body={"error": "invalid login"})

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED" and not scene.count("paused") and scene.count("refused") >= 3:
            scene.note("paused")
            hand.pause("poll-inbox")
            hand.tell(run["id"], "its login is refused")
