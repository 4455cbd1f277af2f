"""A source has renamed a column: the code must be changed."""

from __future__ import annotations

from pilotage.flows.bench.world import Answer, Hand, Job, Json, Request, Scene, Truth, World


class SchemaDrift(World):
    """A column is gone."""

    name = "schema-drift"
    about = "a source renamed a column"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.column = self.random.choice(["amount", "currency", "booked_at"])

    def setup(self, scene: Scene) -> None:
        scene.deploy("import-bookings", "load")

    def drive(self, scene: Scene) -> None:
        scene.start("import-bookings")

    def truth(self) -> Truth:
        return Truth(
            remediable=False,
            right=frozenset({"notify_owner"}),
            wrong=frozenset({"retry_run", "resize_run"}),
            tell=True,
        )

    def load(self, job: Job) -> None:
        job.spend(0.3)
        for row in job.http.get("/bookings").json():
            row[self.column]
        job.record("loaded")

    def answer(self, scene: Scene, request: Request) -> Answer:
        return Answer(body=[{f"{self.column}_v2": 1}])

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED":
            hand.tell(run["id"], "a column is gone")
