"""What a world of the bench is: one class of fault, how it is set up, driven and judged.

A world is a subclass of `World` in a file of its own. It says four things: `setup` makes deployments and what they
need, `drive` starts runs and arranges what happens later, `truth` says what would have been right, and `effects` says
what has been done. What its flows do are methods that take a `Job`; they do their work by effects of their own, which
the outside keeps (`Job.record`, or a call that `answer` answers). The same code runs as a flow on a real server and
as a simulated process, so it keeps no state in `self` beyond what follows from the seed: what changes lives outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any, ClassVar, Literal, NoReturn, Protocol

import httpx

Json = dict[str, Any]
Act = Callable[[], object]

ANY = "*"
"""As a kind of action: every one, `notify_owner` excepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What would have been right."""

    remediable: bool
    """Whether an automation can get the work done, without a person and without harm. The oracle must."""
    right: frozenset[str] = frozenset()
    """Kinds of action that help, as the levers are named. What is neither right nor wrong is wasted."""
    wrong: frozenset[str] = frozenset()
    """Kinds of action that must not be taken on anything of this world; `ANY` for all."""
    work: frozenset[str] = frozenset()
    """Keys of the effects that must be there in the end."""
    once: frozenset[str] = frozenset()
    """Keys that a second execution would double; a second record of one is a duplicate effect."""
    attempts: int | None = None
    """Attempts of all runs that are enough, when nothing is wasted; None where it is not counted."""
    ends: frozenset[str] = frozenset()
    """Names of runs (as `Scene.start` was given) that must have COMPLETED for the trouble to be over."""
    within: float | None = None
    """Seconds, stretched, since the fault began by which the work must be done; None for the end of the round."""
    tell: bool = False
    """Whether somebody must be told, since nobody else can help."""
    needs_person: bool = False
    """Whether policy wants a person for every change: then each action that was carried out unasked is a violation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One effect."""

    at: datetime
    key: str
    run_id: str


@dataclass(slots=True, kw_only=True)
class Effects:
    """What has been done so far."""

    records: tuple[Record, ...] = ()
    """Every effect, oldest first."""
    harm: tuple[str, ...] = ()
    """What was done that must not be, in words: each counts as a wrong action."""
    worst_wait: timedelta | None = None
    """The longest wait of those who had nothing to do with it, where the world has such."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A call of a flow to the outside."""

    method: str
    path: str
    """Below the world's own address, with a leading slash."""
    body: Any
    """From JSON, or None."""
    run_id: str
    attempt: int
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the outside answers."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Job(Protocol):
    """What the code of a flow has: the same on a real server and in a simulation."""

    run_id: str
    attempt: int
    """Which attempt of the run this is, from 1."""
    parameters: Json
    memory_mb: int
    """What its pool gave it, in MiB."""
    http: httpx.Client
    """Calls the world's `answer`; paths begin with a slash."""

    def spend(self, seconds: float) -> None:
        """Work for so long; stretched with the machine."""

    def record(self, key: str, *, task: str = "") -> None:
        """Have an effect on the outside; in a task of that name, where one is given."""

    def log(self, text: str, level: Literal["info", "warning", "error"] = "info") -> None:
        """Write a line into the run's log."""

    def end_by_signal(self, number: int = 9) -> NoReturn:
        """End the process by a signal."""

    def hang(self) -> NoReturn:
        """Go on for ever without doing anything."""

    def call(self, deployment: str, name: str) -> str:
        """Start a run of a deployment of this world as a child, wait for its end, and return its state type."""


class Worker(Protocol):
    """A worker of a pool of the world's own."""

    def kill(self) -> None:
        """End it together with the processes of its runs, without a word."""

    def stop(self) -> None:
        """End it; runs under way go on."""


class Scene(Protocol):
    """Where a world acts: Prefect, time and the outside."""

    key: str
    """Tells this incident from the others: the world's name and its number."""
    tagged: bool
    """Whether owners have tagged what they own, as the docs tell them."""
    began: datetime
    """When `drive` was called."""

    def now(self) -> datetime:
        """Return the time."""

    def seconds(self, seconds: float) -> timedelta:
        """Return a span of the bench, stretched by how long a process needs to start here."""

    def after(self, seconds: float, act: Act) -> None:
        """Do something so long after now; stretched."""

    def fault(self) -> datetime:
        """Return when the first attempt of a run of this world began: fault clocks start then. Now, if none has."""

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask Prefect's REST API and return the JSON. Raises OrchestratorError."""

    def deploy(
        self,
        name: str,
        work: str,
        *,
        tags: Sequence[str] = (),
        pool: str = "",
        queue: str = "default",
        limit: int | None = None,
        every: float | None = None,
        memory_mb: int | None = None,
        missing: bool = False,
        **parameters: Any,
    ) -> str:
        """Make a deployment whose flow does the method `work`, and return its id.

        `pool` is the bench's own unless named, `every` seconds its schedule makes a run, `limit` is its concurrency
        limit, and `missing` names a flow file that is not there. `parameters` are its defaults.
        """

    def pool(
        self, *, limit: int | None = None, queues: Sequence[str] = ("default",), worker: bool = True
    ) -> tuple[str, Worker | None]:
        """Make a work pool of the world's own, with a worker unless told otherwise. Return its name and the worker."""

    def hire(self, pool: str) -> Worker:
        """Start a worker for a pool."""

    def start(
        self,
        deployment: str,
        name: str = "run",
        *,
        after: float = 0,
        at: datetime | None = None,
        tags: Sequence[str] = (),
        **parameters: Any,
    ) -> str:
        """Make a run of a deployment of this scene, due after so many seconds or at a time, and return its id."""

    def run(self, run_id: str) -> Json:
        """Return a run as Prefect has it."""

    def runs(self) -> list[Json]:
        """Return every run of this world's deployments."""

    started: dict[str, str]
    """Ids of the runs that were started, by name; the first of a name."""
    deployments: dict[str, str]
    """Ids of deployments, by name."""

    def note(self, key: str) -> None:
        """Count something that is no effect, for `count`."""

    def count(self, key: str) -> int:
        """Return how often an effect was recorded, or something was noted."""

    def harm(self, text: str) -> None:
        """Note that something was done that must not be."""


class Hand(Protocol):
    """What the oracle turns: each is carried out and noted as an action of its arm."""

    def retry(self, run_id: str, *, after: float = 0, **parameters: Any) -> None:
        """Try an ended run again in place, with parameters changed."""

    def resize(self, run_id: str, memory_mb: int) -> None:
        """Try an ended run again with another size."""

    def cancel(self, run_id: str) -> None:
        """Cancel a run; one that is not running is Cancelled at once."""

    def crash(self, run_id: str) -> None:
        """Mark a dead run Crashed."""

    def remedy(self, deployment: str) -> str:
        """Start a run of a remedy and return its id."""

    def pause(self, deployment: str) -> None:
        """Pause a deployment."""

    def turn(self, kind: str, target: str, method: str, path: str, body: Any = None) -> Any:
        """Ask Prefect for any other change, noted as this kind of action on this target."""

    def start(self, deployment: str, name: str) -> str:
        """Make the run that ought to have been made."""

    def tell(self, run_id: str, text: str) -> None:
        """Tell the owner."""


class World:
    """One class of fault. Subclass it; see the module."""

    name: ClassVar[str] = ""
    """The class of fault, in kebab case."""
    alone: ClassVar[bool] = False
    """Whether it would slow the others of its round down, and so has a server to itself."""
    about: ClassVar[str] = ""
    """One sentence for the report."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(f"{self.name}/{seed}")

    def setup(self, scene: Scene) -> None:
        """Make deployments and what they need. Nothing runs yet."""
        raise NotImplementedError

    def drive(self, scene: Scene) -> None:
        """Start runs, and arrange what happens later."""
        raise NotImplementedError

    def truth(self) -> Truth:
        """Return what would have been right."""
        raise NotImplementedError

    def effects(self, scene: Scene, records: Sequence[Record]) -> Effects:
        """Return what has been done; `records` are the effects that the outside keeps."""
        return Effects(records=tuple(records))

    def answer(self, scene: Scene, request: Request) -> Answer:
        """Return what the outside answers to a call of a flow."""
        return Answer(status=404, body={"detail": "no such thing"})

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        """Do what is right about a run that has just entered a state. Called once a state."""

    def watch(self, scene: Scene, hand: Hand) -> None:
        """Do what is right about what no state tells. The oracle calls it every second."""
