"""A Prefect server in memory, over a clock that a test moves.

`FakePrefect` answers the routes of Prefect's REST API that pilotage uses, with the rules of Prefect 3.8 and 3.9; a
contract (`tests/flows/dev/test_prefect_contract.py`) holds it and a real server to the same behaviour, route by route.

    clock = FrozenClock(datetime(2027, 3, 1, tzinfo=UTC))
    fake = FakePrefect(clock)
    api = PrefectApi(API_URL, transport=fake.transport)      # or httpx.Client(transport=…, base_url=API_URL)
    fake.ask("POST", "/work_pools/", {"name": "pool", "type": "process"})    # sets a scene without HTTP
    SimulatedWorker(fake, "pool", script)                    # takes runs and drives what they do
    fake.advance(timedelta(hours=1))                         # all that falls due on the way happens at its time

What is alike: states and orchestration (`rules.py`), deployments' limits with leases, idempotency keys, bulk changes,
pages and their limits, 422 for what no schema knows, ranks of queues, what a worker is handed, schedules with their
runs ahead, late runs, expired pauses and leases, cancelled children, events of states.

What is not: no websocket; an event can be read at once (Prefect writes events seconds later, and says so nowhere);
one request at a time, so there are no races; cron and interval schedules only; parameters and job variables are not
held against schemas; a run that waits for input is not resumed by its route. A request for something that the fake
does not know is answered 501, never with a guess.

With a `SystemClock`, the default, what falls due happens before the next request.
"""

from __future__ import annotations

from pilotage.flows.dev.fake_prefect.clock import Clock, FrozenClock, SystemClock
from pilotage.flows.dev.fake_prefect.server import API_URL, ROUTES, FakePrefect, FakeTransport

__all__ = ["API_URL", "ROUTES", "Clock", "FakePrefect", "FakeTransport", "FrozenClock", "SystemClock"]
