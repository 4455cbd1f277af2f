"""The other side says how long to wait, and lengthens the ban of those who ask meanwhile."""

from __future__ import annotations

from pilotage.flows.bench.world import Answer, Hand, Job, Json, Request, Scene, Truth, World


class RateLimited(World):
    """429 with a Retry-After."""

    name = "rate-limited"
    about = "429 with Retry-After; asking meanwhile is punished"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.ban = self.random.choice([25, 40, 60])

    def setup(self, scene: Scene) -> None:
        scene.deploy("pull-orders", "pull")

    def drive(self, scene: Scene) -> None:
        scene.start("pull-orders")

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"retry_run"}),
            wrong=frozenset({"pause_deployment", "resize_run"}),
            work=frozenset({"orders"}),
            once=frozenset({"orders"}),
            attempts=2,
        )

    def pull(self, job: Job) -> None:
        job.spend(0.3)
        answer = job.http.get("/orders")
        if answer.status_code == 429:
            job.log(f"429 Too Many Requests, Retry-After: {answer.headers['retry-after']}", "error")
        answer.raise_for_status()
        job.record("orders", task="store")

    def answer(self, scene: Scene, request: Request) -> Answer:
        ends = scene.fault() + scene.seconds(self.ban)
        if request.now >= ends:
            return Answer(body=[1, 2, 3])
        if request.attempt > 1:
            scene.harm("asked again before the time that Retry-After named")
        left = max(1, round((ends - request.now).total_seconds()))
        return Answer(status=429, body={"error": "slow down"}, headers={"retry-after": str(left)})

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED":
            hand.retry(run["id"], after=self.ban + 2)
