"""Why a deployment has no run: its schedules, its pause, the hours of a wrong zone, and runs that Prefect did not make."""

from __future__ import annotations

import math
from collections import Counter
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pilotage.planner.detect.blockage import Blockage, Cause, ago, doubts_about, who_paused
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.remediation import words_of
from pilotage.telemetry.facts import DeploymentFact, ScheduleFact
from pilotage.telemetry.queries.site import SiteFacts
from pilotage.telemetry.times import utc_minute

MADE_WITHIN = timedelta(minutes=3)
"""Prefect makes the runs of a schedule within a minute, and a hundred deployments at a time."""
SHORTEST_SHIFT = timedelta(hours=3)
"""A schedule that fires more often has no hours that a zone could shift."""


def next_start(moment: datetime | None, site: SiteFacts) -> str:
    """Return `in 3 min (at 12:00 UTC)`."""
    if moment is None:
        return "at a time that is not known"
    return f"in {words_of(moment - site.now)} (at {utc_minute(moment)})"


def schedule_blockage(
    deployment: DeploymentFact, site: SiteFacts, parameters: PlaybookParameters
) -> Blockage:
    """Return why no run of a deployment is due: the first of the chain from its schedules to its next start."""
    entity = f"deployment:{deployment.deployment_id}"
    unsure = doubts_about(site, "deployments")
    schedules = site.schedules.get(deployment.deployment_id, ())
    if not schedules:
        return Blockage(
            cause=Cause.NO_SCHEDULE,
            entity=entity,
            words=f"The deployment {deployment.name} has no schedule: only people and other programs start its runs.",
            doubts=unsure,
            disproof="a schedule of it",
        )
    active = [each for each in schedules if each.active]
    if not active:
        return _inactive(deployment, schedules, site, unsure)
    if deployment.paused:
        return _paused(deployment, active, site, unsure)
    for schedule in active:
        if (found := wrong_zone(schedule, site, parameters)) is not None:
            return found
    if (missed := not_made(deployment, active, site)) is not None:
        return missed
    upcoming = site.upcoming.get(deployment.deployment_id)
    due = upcoming or min((each.next_due for each in active if each.next_due), default=None)
    return Blockage(
        cause=Cause.NOT_DUE,
        entity=entity,
        words=f"The next run of {deployment.name} is due {next_start(due, site)}; the last one was due "
        f"{ago(site.last_start.get(deployment.deployment_id), site)}.",
        doubts=unsure,
    )


def _inactive(
    deployment: DeploymentFact, schedules: tuple[ScheduleFact, ...], site: SiteFacts, unsure: tuple[str, ...]
) -> Blockage:
    since = max((each.inactive_since or each.changed for each in schedules if each.changed), default=None)
    last = site.last_start.get(deployment.deployment_id)
    count = "its schedule is" if len(schedules) == 1 else f"all {len(schedules)} of its schedules are"
    told = f"; it last ran by one {ago(last, site)}" if last else "; no run by one is known"
    return Blockage(
        cause=Cause.SCHEDULE_INACTIVE,
        entity=f"deployment:{deployment.deployment_id}",
        since=since,
        words=f"No run of {deployment.name} is made: {count} switched off, last edited {ago(since, site)}{told}.",
        todo="Switch the schedule on again, if it is not meant to be off.",
        doubts=unsure,
        disproof="an active schedule",
    )


def _paused(
    deployment: DeploymentFact, active: list[ScheduleFact], site: SiteFacts, unsure: tuple[str, ...]
) -> Blockage:
    since = deployment.paused_since
    act = who_paused(site, (deployment.deployment_id,), since, "pause-deployment", "pause_deployment")
    missed = missed_starts(active, since, site)
    told = f" since {words_of(site.now - since)}" if since else ", for longer than pilotage has looked"
    served = (
        " It has no work pool: a process that served it and ended leaves it paused."
        if deployment.pool is None
        else ""
    )
    return Blockage(
        cause=Cause.DEPLOYMENT_PAUSED,
        entity=f"deployment:{deployment.deployment_id}",
        since=since,
        words=f"The deployment {deployment.name} is paused{told}, so its schedules make no runs"
        + (f"; about {missed} starts were missed." if missed else ".")
        + served,
        by=act.by if act else "",
        ours=bool(act and act.ours),
        todo="It is resumed by itself when its time is over; an admin can do it now."
        if act and act.ours
        else "Resume the deployment, if it is not meant to be off.",
        doubts=unsure,
        disproof="the deployment is resumed",
    )


def missed_starts(schedules: list[ScheduleFact], since: datetime | None, site: SiteFacts) -> int:
    """Return how often these schedules should have fired since a moment; 0 where that cannot be told."""
    if since is None:
        return 0
    missed = 0
    for each in schedules:
        last = last_due(each, site)
        if last is not None and last > since and each.every:
            missed += 1 + int((last - since) / timedelta(seconds=each.every))
    return missed


def last_due(schedule: ScheduleFact, site: SiteFacts) -> datetime | None:
    """Return when a schedule last should have fired, also since it was last seen."""
    if schedule.next_due is not None and schedule.next_due <= site.now and schedule.every:
        gone = int((site.now - schedule.next_due) / timedelta(seconds=schedule.every))
        return schedule.next_due + gone * timedelta(seconds=schedule.every)
    return schedule.last_due


def not_made(deployment: DeploymentFact, active: list[ScheduleFact], site: SiteFacts) -> Blockage | None:
    """Return that a schedule should have fired and Prefect made no run for it, or None."""
    if doubts_about(site, "deployments"):
        return None
    made = site.last_start.get(deployment.deployment_id)
    for each in active:
        due = last_due(each, site)
        if due is not None and each.every:
            # of a short schedule the newest start is always news; the newest one that ought to be there counts
            early = max(timedelta(0), MADE_WITHIN - (site.now - due))
            due -= math.ceil(early / timedelta(seconds=each.every)) * timedelta(seconds=each.every)
        if due is None or site.now - due < MADE_WITHIN:
            continue
        edited = each.changed is not None and each.changed >= due - timedelta(minutes=2)
        if edited or deployment.updated >= due - timedelta(minutes=2):
            continue  # an edit throws the runs away that were made before it
        if made is not None and made >= due - timedelta(seconds=1):
            continue
        if deployment.deployment_id in site.upcoming and made is None:
            continue  # its first run is still to come, or older ones are not kept here
        return Blockage(
            cause=Cause.NOT_MADE,
            # where runs are made for others, it is no trouble of the scheduler
            # where runs are made for others, or there are no others, it is no trouble of the scheduler
            entity="prefect"
            if not site.upcoming and len(site.schedules) > 1
            else f"deployment:{deployment.deployment_id}",
            since=due,
            words=f"A schedule of {deployment.name} should have fired {ago(due, site)}, and Prefect made no run for it; "
            f"the last one was for {ago(made, site)}.",
            todo="See whether Prefect's scheduler runs (`prefect server services`), and whether somebody deleted the run.",
            disproof="a run of that start",
        )
    return None


def home_zone(site: SiteFacts, parameters: PlaybookParameters, but: ScheduleFact) -> tuple[str, int] | None:
    """Return the zone in which nearly all other schedules of the site are given, and how many these are."""
    zones = Counter(
        each.timezone or "UTC"
        for schedules in site.schedules.values()
        for each in schedules
        if each.cron and each.schedule_id != but.schedule_id and each.active
    )
    if not zones:
        return None
    zone, count = zones.most_common(1)[0]
    enough = count >= parameters.zone_schedules and count >= parameters.zone_share * zones.total()
    return (zone, count) if enough else None


def wrong_zone(schedule: ScheduleFact, site: SiteFacts, parameters: PlaybookParameters) -> Blockage | None:
    """Return that a schedule without a zone starts hours off what the site's other schedules mean, or None."""
    if not schedule.cron or not schedule.active or schedule.timezone not in ("", "UTC", "Etc/UTC"):
        return None
    if schedule.next_due is None or not schedule.every or schedule.every < SHORTEST_SHIFT.total_seconds():
        return None
    home = home_zone(site, parameters, schedule)
    if home is None:
        return None
    try:
        zone = ZoneInfo(home[0])
    except (ZoneInfoNotFoundError, ValueError):
        return None
    offset = schedule.next_due.astimezone(zone).utcoffset() or timedelta(0)
    if abs(offset) < timedelta(hours=1):
        return None
    deployment = site.deployments.get(schedule.deployment_id)
    name = deployment.name if deployment else schedule.deployment_id
    meant = schedule.next_due - offset
    while meant > site.now + timedelta(seconds=schedule.every):
        meant -= timedelta(seconds=schedule.every)
    shift = f"{words_of(abs(offset))} {'earlier' if offset > timedelta(0) else 'later'}"
    return Blockage(
        cause=Cause.WRONG_ZONE,
        entity=f"deployment:{schedule.deployment_id}",
        words=f"The schedule of {name} (`{schedule.cron}`) has no time zone, so Prefect means UTC: its next start is "
        f"{next_start(schedule.next_due, site)}. The {home[1]} other schedules here are in {home[0]}; by that it would "
        f"be at {utc_minute(meant)}, {shift}.",
        todo=f"Give the schedule its zone (`timezone: {home[0]}`), if it is not meant in UTC.",
        disproof="the owner means UTC",
    )
