"""The owner has said what helps: a flow that renews the token, then another attempt."""

from __future__ import annotations

from pilotage.flows.bench.world import Answer, Hand, Job, Json, Request, Scene, Truth, World

TEAM = "team:books"
"""Its own: what a team declares as a remedy is one for all of the team's deployments."""


class DeclaredRemedy(World):
    """A token that has run out, and a remedy for it."""

    name = "declared-remedy"
    about = "an expired token, for which the owner has declared a remedy"

    def setup(self, scene: Scene) -> None:
        scene.deploy("sync-books", "sync", tags=(TEAM,))
        scene.deploy(
            "renew-token",
            "renew",
            tags=(TEAM, "pilotage:remediation", "pilotage:remedies:auth"),
        )

    def drive(self, scene: Scene) -> None:
        scene.start("sync-books")

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"launch_remediation", "retry_run"}),
            wrong=frozenset({"pause_deployment", "resize_run", "cancel_run"}),
            work=frozenset({"synced"}),
            once=frozenset({"synced"}),
            attempts=3,
        )

    def sync(self, job: Job) -> None:
        job.spend(0.3)
        job.http.get("/books").raise_for_status()
        job.record("synced", task="sync")

    def renew(self, job: Job) -> None:
        job.spend(0.3)
        job.record("token")

    def answer(self, scene: Scene, request: Request) -> Answer:
        if scene.count("token"):
            return Answer(body=[])
        return Answer(status=401, body={"error": "token expired"})

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED":
            hand.remedy("renew-token")
        if run["state_type"] == "COMPLETED" and run["deployment_id"] == scene.deployments["renew-token"]:
            hand.retry(scene.started["run"])
