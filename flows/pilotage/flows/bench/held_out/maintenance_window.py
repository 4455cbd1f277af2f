"""The other side is maintained, and says until when."""

from __future__ import annotations

from email.utils import format_datetime

from pilotage.flows.bench.world import Answer, Hand, Job, Json, Request, Scene, Truth, World


class MaintenanceWindow(World):
    """503 with the date of its end."""

    name = "maintenance-window"
    about = "503 during maintenance, with Retry-After as a date"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.lasts = self.random.choice([50, 75, 100])

    def setup(self, scene: Scene) -> None:
        scene.deploy("pull-invoices", "pull")

    def drive(self, scene: Scene) -> None:
        scene.start("pull-invoices")

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"retry_run"}),
            wrong=frozenset({"pause_deployment", "resize_run", "cancel_run"}),
            work=frozenset({"invoices"}),
            once=frozenset({"invoices"}),
            attempts=2,
        )

    def pull(self, job: Job) -> None:
        job.spend(0.4)
        answer = job.http.get("/invoices")
        if answer.status_code == 503:
            job.log(
                f"503 Service Unavailable (maintenance). Retry-After: {answer.headers['retry-after']}",
                "error",
            )
        answer.raise_for_status()
        job.record("invoices", task="store")

    def answer(self, scene: Scene, request: Request) -> Answer:
        ends = scene.fault() + scene.seconds(self.lasts)
        if request.now >= ends:
            return Answer(body=[])
        if request.attempt > 1:
            scene.harm("asked again during the maintenance that it was told of")
        until = format_datetime(ends.replace(microsecond=0), usegmt=True)
        return Answer(status=503, body={"error": "maintenance"}, headers={"retry-after": until})

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED":
            hand.retry(run["id"], after=self.lasts + 3)
