"""Who fills which seat: one person fills one seat, whatever the number of roles that person holds.

Ann as approver and admin is one approval, not two. Seats and people are matched by Kuhn's algorithm for
bipartite graphs; the numbers are tiny.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from itertools import product

People = Mapping[str, AbstractSet[str]]
"""Person to the roles that this person can fill."""


def unfilled(need: Mapping[str, int], people: People) -> dict[str, int]:
    """The seats of `need` that these people leave empty, by role; empty when all are filled.

    Roles that come later in `need` are filled first, so what is left over is of the earlier, cheaper ones.
    """
    approval_requirements = [role for role in reversed(list(need)) for _ in range(need[role])]
    holder: dict[str, int] = {}

    def filled(approval_requirement: int, tried: set[str]) -> bool:
        for person in sorted(people):
            if approval_requirements[approval_requirement] in people[person] and person not in tried:
                tried.add(person)
                if person not in holder or filled(holder[person], tried):
                    holder[person] = approval_requirement
                    return True
        return False

    empty: dict[str, int] = {}
    for approval_requirement, role in enumerate(approval_requirements):
        if not filled(approval_requirement, set()):
            empty[role] = empty.get(role, 0) + 1
    return empty


def fillable(roles: Sequence[str], people: People, most: int) -> tuple[dict[str, int], ...]:
    """The largest sets of seats, up to `most` of each role, that these people fill; none contains another.

    With nobody there it is the one empty set.
    """
    if not people:
        return (dict.fromkeys(roles, 0),)
    able = [min(most, sum(role in held for held in people.values())) for role in roles]
    options = [
        dict(zip(roles, counts, strict=True))
        for counts in product(*(range(count + 1) for count in able))
        if sum(counts) <= len(people)
    ]
    full = [need for need in options if not unfilled(need, people)]
    return tuple(
        need
        for need in full
        if not any(other != need and all(other[role] >= need[role] for role in roles) for other in full)
    )


def candidate_quorums(
    roles: Sequence[str], people: People, most: int
) -> tuple[tuple[Mapping[str, int], Mapping[str, int]], ...]:
    """Every set of up to `most` seats of each role that is not full yet: what is missing, and all of its seats.

    Cheapest first: the fewest people, then the earlier roles.
    """
    return _candidate_quorums(
        tuple(roles), tuple((who, frozenset(people[who])) for who in sorted(people)), most
    )


@lru_cache(maxsize=256)
def _candidate_quorums(
    roles: tuple[str, ...], people: tuple[tuple[str, frozenset[str]], ...], most: int
) -> tuple[tuple[Mapping[str, int], Mapping[str, int]], ...]:
    counted = sorted(
        product(range(most + 1), repeat=len(roles)), key=lambda counts: (sum(counts), counts[::-1])
    )
    needs = [dict(zip(roles, counts, strict=True)) for counts in counted]
    missing = [(unfilled(need, dict(people)), need) for need in needs]
    return tuple(sorted((pair for pair in missing if pair[0]), key=lambda pair: sum(pair[0].values())))
