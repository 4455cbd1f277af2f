"""Answers without a model: what a question means is resolved, looked up with the same tools, and told in plain words.

What is meant but not named is taken from what was talked about last; what fits several is asked back as numbered choices.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from pilotage.planner.chat import words
from pilotage.planner.chat.questions.intents import table
from pilotage.planner.chat.questions.meaning import Meaning, meaning_of
from pilotage.planner.chat.questions.names import Named
from pilotage.planner.chat.tools import LookedUp, Toolbox, looked_up

RUN_ID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
NO_MODEL = "No language model is configured: these answers come from rules."
FROM_MEMORY = "The same fault came before, so this is told from memory; no model was asked."
MOST_CHOICES = 9


def help_text() -> str:
    """Return what can be asked, by an example of each kind."""
    shown = "; ".join(f"`{each}`" for each in dict.fromkeys(each.example for each in table().intents))
    return (
        "I can answer questions like these, with a name, a part of a name or an id for NAME, and times such as "
        f"`last night` or `in the last 3 hours`: {shown}. I draft `retry NAME`, which you send. What waits for a person: "
        "`/inbox`; answer it with `/approve ID` or `/reject ID WHY`."
    )


@dataclass(slots=True)
class Talk:
    """What one conversation was about last; lives as long as its process."""

    choices: tuple[tuple[str, Named], ...] = ()
    """The question that was asked back, with each thing that it may mean."""
    run: Named | None = None
    deployment: Named | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesAnswer:
    """One answer: the words for people, and the look-ups that they are told from."""

    text: str
    found: tuple[LookedUp, ...] = ()
    remembered: bool = field(default=False)
    """Whether it is told from what became of the same fault before."""
    understood: bool = True
    """Whether rules know what was asked; else the text says what can be."""


class Lacking(Exception):  # control flow inside this module; callers get an answer
    """Something that the question needs was not named, in words."""


@dataclass(slots=True)
class Asked:
    """One question on its way to an answer."""

    meaning: Meaning
    tools: Toolbox
    now: datetime
    talk: Talk
    found: list[LookedUp] = field(default_factory=list)
    assumed: str = ""
    """What was taken to be meant because nothing was named, in words."""

    def look(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The result of one look-up, which becomes evidence of the answer."""
        lookup = looked_up(self.tools, tool, arguments)
        self.found.append(lookup)
        return lookup.result

    def hours(self, default: float) -> dict[str, float]:
        """`hours` and `until_hours_ago` of the stretch of time that was named, or of the default."""
        window = self.meaning.window
        if window is None or window.since is None:
            return {"hours": default, "until_hours_ago": 0}
        end = min(window.until or self.now, self.now)
        return {"hours": _in_hours(self.now - window.since), "until_hours_ago": _in_hours(self.now - end)}

    def ahead(self, default: float) -> dict[str, float]:
        """`hours` and `from_hours` of a stretch of time that is still to come."""
        window = self.meaning.window
        if window is None or window.since is None or window.until is None:
            return {"hours": default, "from_hours": 0}
        return {"hours": _in_hours(window.until - self.now), "from_hours": _in_hours(window.since - self.now)}

    def deployment(self) -> Named | None:
        """The deployment that is meant: named, that of the named run, or what was talked about last."""
        if self.meaning.deployments:
            return self.meaning.deployments[0]
        if self.meaning.runs:
            return _deployment_of(self.tools, self.meaning.runs[0].key)
        return self.talk.deployment if _points_back(self.meaning) else None

    def run(self, *, failed: bool = False) -> Named | None:
        """The run that is meant: named, the newest of the named deployment, or what was talked about last."""
        if self.meaning.runs:
            return self.meaning.runs[0]
        if self.meaning.deployments:
            return self.newest(self.meaning.deployments[0].key, failed=failed)
        if _points_back(self.meaning) and self.talk.run:
            return self.talk.run
        if not failed:
            return None
        self.assumed = "The question names nothing that is known, so this is of the run that failed last."
        return self.newest("", failed=True)

    def newest(self, deployment_id: str, *, failed: bool = False, state: str = "") -> Named | None:
        """The newest run of a deployment, or of all, that ended so; in the stretch of time that was named."""
        window = self.meaning.window
        rows = self.tools.store.rows(
            "SELECT run_id, name FROM runs WHERE (? = '' OR deployment_id = ?) AND run_count > 0 "
            "AND (NOT ? OR state_type IN ('FAILED', 'CRASHED')) AND (? = '' OR state_type = ?) "
            "AND coalesce(ended, started, updated) BETWEEN ? AND ? ORDER BY coalesce(ended, started) DESC, run_id LIMIT 1",
            [deployment_id, deployment_id, failed, state, state,
             (window.since if window else None) or self.now - timedelta(days=400),
             (window.until if window else None) or self.now + timedelta(days=1)],
        )  # fmt: skip
        return Named(kind="run", key=rows[0]["run_id"], name=rows[0]["name"]) if rows else None


_STRANGE = re.compile(r"(?<![\w-])(?!(?:re|non|on|over|long|so|pre|post|up|half)-)[a-z]\w+[-_/]\w[\w/-]*")
"""A word that looks like a name and is none that is known."""


_OF_NO_RUN = frozenset({"runs", "needs_me", "automations", "costs", "kpis", "status"})
"""Kinds of question that are about nothing that has to be known here, or say themselves what they did not find."""


def _known(meaning: Meaning) -> None:
    """Raise Lacking where the question names something that is not known, so that nothing else is told in its place."""
    named = meaning.runs or meaning.deployments or meaning.others
    if not named and meaning.intent not in _OF_NO_RUN and (strange := _STRANGE.search(meaning.words)):
        raise Lacking(f"No run and no deployment that is known is called {words.quoted(strange[0], 60)}.")


def _in_hours(span: timedelta) -> float:
    return round(max(0.0, span.total_seconds()) / 3600, 2)


def _points_back(meaning: Meaning) -> bool:
    return not meaning.runs and not meaning.deployments


def _deployment_of(tools: Toolbox, run_id: str) -> Named | None:
    rows = tools.store.rows(
        "SELECT d.deployment_id, d.flow_name, d.name FROM deployments d JOIN runs r USING (deployment_id) "
        "WHERE r.run_id = ?",
        [run_id],
    )
    found = rows[0] if rows else None
    return (
        Named(kind="deployment", key=found["deployment_id"], name=f"{found['flow_name']}/{found['name']}")
        if found
        else None
    )


def answer_by_rules(question: str, tools: Toolbox, talk: Talk | None = None) -> RulesAnswer:
    """Return the answer to a question, the question back where it fits several things, or what can be asked.

    `talk` is what the conversation was about, and is kept up to date. Reads the store.
    """
    talk = talk if talk is not None else Talk()
    now = tools.clock().astimezone(tools.zone)
    meaning = _chosen(question, tools, now, talk) or meaning_of(question, tools.store, now)
    if not meaning.intent:
        return RulesAnswer(text=help_text(), understood=False)
    if meaning.ambiguous:
        return _choices(question, meaning, talk)
    asked = Asked(meaning, tools, now, talk)
    try:
        _known(meaning)
        text = ANSWERS[meaning.intent](asked)
        text = f"{asked.assumed}\n{text}" if asked.assumed and asked.found else text
    except Lacking as lacking:
        return RulesAnswer(text=f"{lacking} {help_text()}", understood=False)
    talk.choices = ()
    talk.run = next(iter(meaning.runs), talk.run)
    talk.deployment = next(iter(meaning.deployments), talk.deployment)
    return RulesAnswer(text=text, found=tuple(asked.found))


# -- what fits several


def _choices(question: str, meaning: Meaning, talk: Talk) -> RulesAnswer:
    shown = sorted(meaning.deployments, key=lambda each: each.name)[:MOST_CHOICES]
    talk.choices = tuple((question, each) for each in shown)
    lines = [f"{n}. {words.quoted(each.name)}" for n, each in enumerate(shown, 1)]
    more = len(meaning.deployments) - len(shown)
    lines += [f"and {more} more: name more of it"] if more > 0 else []
    return RulesAnswer(text="Which one? Say its number, or its name.\n" + "\n".join(lines))


def _chosen(question: str, tools: Toolbox, now: datetime, talk: Talk) -> Meaning | None:
    """The meaning of the question that was asked back, with the choice that this number makes; None for all else."""
    number = re.fullmatch(r"(?:number |no\.? |#)?([1-9])[.)]?", question.strip().lower())
    if number is None or int(number[1]) > len(talk.choices):
        return None
    before, chosen = talk.choices[int(number[1]) - 1]
    return replace(meaning_of(before, tools.store, now), deployments=(chosen,))


# -- one function a kind of question


def _error(result: Mapping[str, Any]) -> str:
    return f"It cannot be told: {result['error']}." if "error" in result else ""


def _needs(named: Named | None, what: str) -> Named:
    if named is None:
        raise Lacking(f"That needs {what}, by its name, a part of it or an id.")
    return named


def _story(asked: Asked) -> str:
    run = _needs(asked.run(), "a run or a deployment that has run")
    result = asked.look("run_timeline", run_id=run.key)
    return _error(result) or words.timeline(result)


def _why_failed(asked: Asked) -> str:
    run = asked.run(failed=True)
    if run is None:
        where = f" of {asked.meaning.deployments[0].name}" if asked.meaning.deployments else ""
        return f"No run{where} failed in that time, as far as is known."
    asked.talk.run = run
    result = asked.look("why_run", run_id=run.key)
    if problem := _error(result):
        return problem
    past = asked.look("similar_incidents", run_id=run.key)
    return words.why_failed(result, past)


def _why_waits(asked: Asked) -> str:
    run, deployment = next(iter(asked.meaning.runs), None), asked.deployment()
    subject = run or (asked.talk.run if not deployment else None) or deployment
    named = _needs(subject, "a run or a deployment")
    result = asked.look("why_it_waits", name=named.key)
    return _error(result) or words.waits(result, named.name)


def _what_waits(asked: Asked) -> str:
    return words.all_that_waits(asked.look("what_waits"))


def _will_fail(asked: Asked) -> str:
    if asked.meaning.runs:
        result = asked.look("forecast_of", run_id=asked.meaning.runs[0].key)
        return _error(result) or words.forecast(result)
    result = asked.look("riskiest_runs", hours=max(1, round(asked.ahead(24)["hours"])))
    if problem := _error(result):
        return problem
    deployment = asked.deployment() if asked.meaning.deployments else None
    return words.riskiest(result, deployment.key if deployment else "")


def _what_changed(asked: Asked) -> str:
    deployment = _needs(asked.deployment(), "a deployment")
    result = asked.look("what_changed", deployment_id=deployment.key)
    return words.changed(result, deployment.name)


def _how_long(asked: Asked) -> str:
    deployment = _needs(asked.deployment(), "a deployment")
    return words.durations(asked.look("run_durations", deployment_id=deployment.key), deployment.name)


def _how_often(asked: Asked) -> str:
    deployment = asked.deployment() if asked.meaning.deployments or asked.meaning.runs else None
    result = asked.look("how_often", deployment_id=deployment.key if deployment else "", **asked.hours(168))
    return words.how_often(result, deployment.name if deployment else "all deployments")


def _who_decided(asked: Asked) -> str:
    subject = asked.meaning.named("proposal") or asked.meaning.named("incident")
    run = next(iter(asked.meaning.runs), None)
    if not subject and run is None and (deployment := asked.deployment()):
        return words.who_decided(asked.look("decided_about", deployment_id=deployment.key), deployment.name)
    key = subject or _needs(run or asked.talk.run, "a run, a proposal or a deployment").key
    return words.who_decided(asked.look("who_decided", subject=key), run.name if run else key)


def _what_done(asked: Asked) -> str:
    return words.done(asked.look("what_was_done", **asked.hours(24)))


def _logs(asked: Asked) -> str:
    run = _needs(asked.run(failed=not asked.meaning.runs), "a run or a deployment")
    asked.talk.run = run
    return words.log_lines(asked.look("log_lines", run_id=run.key), run.name)


def _compare(asked: Asked) -> str:
    runs = list(asked.meaning.runs[:2])
    if not runs:
        newest = [asked.newest(each.key) for each in asked.meaning.deployments[:2]]
        runs = [each for each in newest if each is not None]
    if len(runs) == 1 and (deployment := _deployment_of(asked.tools, runs[0].key)):
        good = asked.newest(deployment.key, state="COMPLETED")
        runs += [good] if good and good.key != runs[0].key else []
    if len(runs) < 2:
        raise Lacking(
            "That needs two runs or two deployments that have run, or one with a success to compare it with."
        )
    result = asked.look("compare_runs", first_run_id=runs[0].key, second_run_id=runs[1].key)
    return _error(result) or words.compared(result)


def _similar(asked: Asked) -> str:
    run = _needs(asked.run(failed=True), "a run or a deployment")
    result = asked.look("similar_incidents", run_id=run.key)
    return _error(result) or words.similar(result)


def _limits(asked: Asked) -> str:
    return words.limits(asked.look("limits", name=asked.meaning.named("limit")))


def _workers(asked: Asked) -> str:
    return words.workers(asked.look("workers", pool=asked.meaning.named("pool")))


def _automations(asked: Asked) -> str:
    return words.automations(asked.look("automations", hours=asked.hours(168)["hours"]))


def _upcoming(asked: Asked) -> str:
    deployment = asked.deployment() if asked.meaning.deployments or asked.meaning.runs else None
    key = deployment.key if deployment else ""
    load = asked.look("upcoming_load", deployment_id=key, **asked.ahead(24 * 40 if key else 24))
    fires = asked.look("schedules", deployment_id=key) if key else None
    return words.upcoming(load, fires)


def _runs(asked: Asked) -> str:
    deployment = asked.deployment() if asked.meaning.deployments else None
    told = re.sub(r"\bNAME\b", " ", asked.meaning.words)
    free = re.match(r"^(?:runs|find)\s+(\S.*)$", told.strip())
    result = asked.look(
        "find_runs",
        words="" if deployment or not free else re.sub(r"^(?:of|for|from|with)\s+", "", free[1]),
        state=asked.meaning.state,
        hours=max(1, asked.hours(24 * 7 if deployment else 24)["hours"]),
        deployment_id=deployment.key if deployment else "",
    )
    return words.runs(result)


def _failures(asked: Asked) -> str:
    return words.failures(asked.look("recent_failures", **asked.hours(24)))


def _status(asked: Asked) -> str:
    state, waits = asked.look("cluster_status"), asked.look("what_waits")
    return words.status(state, waits)


def _incidents(asked: Asked) -> str:
    return words.incidents(asked.look("incidents", hours=max(1, round(asked.hours(24)["hours"]))))


def _draft(asked: Asked) -> str:
    kind = asked.meaning.kind
    if kind == "pause_deployment":
        target = _needs(asked.deployment(), "a deployment").key
        result = asked.look("draft", kind=kind, target=target, arguments={"hold": "1h"})
    else:
        run = _needs(asked.run(failed=kind == "retry_run"), "a run")
        result = asked.look("draft", kind=kind, target=run.key)
    return _error(result) or words.drafted(result)


ANSWERS: Mapping[str, Callable[[Asked], str]] = {
    "story": _story,
    "why_failed": _why_failed,
    "why_waits": _why_waits,
    "what_waits": _what_waits,
    "will_fail": _will_fail,
    "what_changed": _what_changed,
    "how_long": _how_long,
    "how_often": _how_often,
    "who_decided": _who_decided,
    "what_done": _what_done,
    "logs": _logs,
    "compare": _compare,
    "similar": _similar,
    "limits": _limits,
    "workers": _workers,
    "automations": _automations,
    "upcoming": _upcoming,
    "runs": _runs,
    "failures": _failures,
    "status": _status,
    "incidents": _incidents,
    "draft": _draft,
    "needs_me": lambda asked: words.needs_me(asked.look("waits_for_people")),
    "queues": lambda asked: words.queues(asked.look("queues")),
    "kpis": lambda asked: words.kpis(asked.look("kpis")),
    "costs": lambda asked: words.costs(asked.look("agent_costs")),
    "proposals": lambda asked: words.proposals(asked.look("recent_decisions")),
}
"""What answers each kind of question of the table."""


def answer_from_memory(question: str, tools: Toolbox) -> RulesAnswer | None:
    """The story of a run whose fault came before and of which is known what helped; None for all else."""
    meaning = meaning_of(question, tools.store, tools.clock().astimezone(tools.zone))
    if meaning.intent != "why_failed" or len(meaning.runs) != 1:
        return None
    arguments = {"run_id": meaning.runs[0].key}
    past = looked_up(tools, "similar_incidents", arguments)
    lines = [
        step
        for incident in past.result.get("similar", ())
        if incident["likeness"] == 1
        for step in incident["done"]
        if step["step"] == "verified"
    ]
    if not lines:
        return None
    story = looked_up(tools, "why_run", arguments)
    text = f"{FROM_MEMORY}\n{words.why_failed(story.result, past.result)}"
    return RulesAnswer(text=text, found=(story, past), remembered=True)
