"""The memory of a run in each pool type's own words: read, changed, refused where Prefect would drop it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.telemetry.pool_memory import (
    ADAPTERS,
    FARGATE,
    MemoryChange,
    allowed_sizes,
    change_memory,
    effective,
    memory_of,
    placeholders,
    size_variables,
)

TEMPLATES = Path(__file__).parents[1] / "flows" / "levers" / "pool_templates"
REAL: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text())["base_job_template"] for path in sorted(TEMPLATES.glob("*.json"))
}
"""The base job templates that Prefect's integrations ship, by type of pool."""
MEMORY_TYPES = sorted(set(ADAPTERS) - {"process"})


@pytest.mark.parametrize(
    ("pool_type", "variables", "mib"),
    [
        ("kubernetes", {"memory_limit": "512Mi"}, 512),
        ("kubernetes", {"memory_limit": "1.5Gi", "memory_request": "1Gi"}, 1536),
        ("kubernetes", {"memory_request": "256Mi"}, 256),
        ("kubernetes", {"memory_limit": "1G"}, 953),
        ("kubernetes", {"memory_limit": 536_870_912}, 512),
        ("kubernetes", {"memory_limit": "plenty"}, None),
        ("kubernetes", {"memory": "512Mi"}, None),
        ("ecs", {"memory": 2048}, 2048),
        ("ecs", {"memory": "2048"}, 2048),
        ("ecs:push", {"memory": 4096}, 4096),
        ("ecs", {"memory": -1}, None),
        ("docker", {"mem_limit": "512m"}, 512),
        ("docker", {"mem_limit": "2g"}, 2048),
        ("docker", {"mem_limit": 536_870_912}, 512),
        ("docker", {"mem_limit": "512 elephants"}, None),
        ("cloud-run", {"memory": "512Mi"}, 512),
        ("cloud-run-v2", {"memory": "2Gi"}, 2048),
        ("azure-container-instance", {"memory": 1.5}, 1536),
        ("azure-container-instance", {"memory": "2"}, 2048),
        ("snowpark-container-service", {"memory_limit": "2Gi"}, 2048),
        ("process", {"memory_mb": "512"}, 512),
        ("process", {"memory_mb": 512}, 512),
        ("process", {"memory_mb": True}, None),
        ("process", {}, None),
        ("", {"memory_mb": "512"}, 512),
        ("", {"memory_limit": "512Mi"}, 512),
    ],
)
def test_the_size_is_read_in_the_form_of_the_pool(
    pool_type: str, variables: dict[str, Any], mib: int | None
) -> None:
    assert memory_of(variables, pool_type) == mib


def change(pool_type: str, variables: dict[str, Any], memory_mb: int) -> MemoryChange | str:
    """The change on a pool whose template is the one that the integration ships."""
    template = REAL[pool_type]
    known = template["variables"]["properties"]
    used = placeholders(template["job_configuration"])
    return change_memory(pool_type, known, used, effective(known, {}, variables), memory_mb)


@pytest.mark.parametrize("pool_type", MEMORY_TYPES)
def test_every_type_takes_a_new_size_through_a_variable_of_its_real_template(pool_type: str) -> None:
    template = REAL[pool_type]
    found = change(pool_type, {}, 8192)
    assert isinstance(found, MemoryChange), found
    assert found.memory_mb == 8192
    assert set(found.variables) <= set(template["variables"]["properties"])
    assert set(found.variables) <= placeholders(template["job_configuration"])
    assert memory_of(found.variables, pool_type) == 8192


@pytest.mark.parametrize(
    ("pool_type", "before", "memory_mb", "after"),
    [
        ("kubernetes", {"memory_limit": "512Mi"}, 768, {"memory_limit": "768Mi"}),
        (
            "kubernetes",
            {"memory_limit": "1Gi", "memory_request": "512Mi"},
            2048,
            {"memory_limit": "2048Mi", "memory_request": "1024Mi"},
        ),
        ("docker", {"mem_limit": "512m", "memswap_limit": "1g"}, 1024, {"mem_limit": "1024m", "memswap_limit": "2048m"}),
        ("cloud-run-v2", {"memory": "512Mi"}, 1024, {"memory": "1024Mi"}),
        ("azure-container-instance", {"memory": 1.0}, 1536, {"memory": 1.5}),
    ],
)  # fmt: skip
def test_what_belongs_together_moves_together(
    pool_type: str, before: dict[str, Any], memory_mb: int, after: dict[str, Any]
) -> None:
    found = change(pool_type, before, memory_mb)
    assert isinstance(found, MemoryChange), found
    assert dict(found.variables) == after


def test_fargate_gets_a_size_that_it_sells_with_the_cpu() -> None:
    found = change("ecs", {"cpu": 1024, "memory": 2048}, 3500)
    assert isinstance(found, MemoryChange)
    assert found.memory_mb == 3072
    assert "Fargate takes 512 to 2048" in str(change("ecs", {"cpu": 256, "memory": 512}, 400))
    assert isinstance(change("ecs", {"cpu": 256, "memory": 2048}, 2500), str), (
        "there is no larger one with this CPU"
    )
    assert allowed_sizes({"cpu": 1024, "launch_type": "EC2"}, "ecs") == ()


def test_a_variable_that_the_template_lacks_is_refused_with_its_name() -> None:
    template = REAL["kubernetes"]
    known = {
        name: told for name, told in template["variables"]["properties"].items() if name != "memory_limit"
    }
    found = change_memory("kubernetes", known, placeholders(template["job_configuration"]), {}, 512)
    assert isinstance(found, str)
    assert "'memory_limit'" in found
    assert "Prefect would drop it" in found


def test_a_variable_that_nothing_uses_is_refused() -> None:
    known = REAL["docker"]["variables"]["properties"]
    found = change_memory("docker", known, frozenset({"image"}), {}, 512)
    assert isinstance(found, str)
    assert "does not use" in found


def test_a_process_pool_is_resized_only_where_its_template_knows_the_sites_variable() -> None:
    assert isinstance(change("process", {}, 512), str)
    found = change_memory("process", {"memory_mb": {}}, frozenset({"memory_mb"}), {}, 512)
    assert isinstance(found, MemoryChange)
    assert dict(found.variables) == {"memory_mb": 512}


@given(
    pool_type=st.sampled_from(MEMORY_TYPES),
    memory_mb=st.integers(min_value=1, max_value=200_000),
    cpu=st.sampled_from(sorted(FARGATE)),
)
def test_no_change_gives_more_than_was_approved(pool_type: str, memory_mb: int, cpu: int) -> None:
    found = change(pool_type, {"cpu": cpu} if pool_type == "ecs" else {}, memory_mb)
    if isinstance(found, MemoryChange):
        told = memory_of(found.variables, pool_type)
        assert told is not None
        assert told == found.memory_mb <= memory_mb


@given(
    value=st.one_of(
        st.none(), st.booleans(), st.floats(), st.text(max_size=20), st.lists(st.integers()), st.integers()
    )
)
def test_whatever_stands_there_is_read_or_unknown(value: Any) -> None:
    for pool_type in ("", *ADAPTERS):
        for name in ("memory", "memory_limit", "mem_limit", "memory_mb"):
            read = memory_of({name: value}, pool_type)
            assert read is None or read > 0


@pytest.mark.parametrize("pool_type", MEMORY_TYPES)
def test_what_bears_on_a_size_is_taken_from_a_real_template(pool_type: str) -> None:
    sizes = size_variables(REAL[pool_type], pool_type)
    assert ADAPTERS[pool_type].reads[0] in sizes
    assert set(sizes) <= set(REAL[pool_type]["variables"]["properties"])


@pytest.mark.parametrize("broken", [None, "text", {}, {"variables": None}, {"variables": {"properties": []}}])
def test_what_is_no_template_gives_no_sizes(broken: object) -> None:
    assert size_variables(broken, "kubernetes") == {}


def test_a_default_of_a_process_pool_is_no_limit() -> None:
    template = {"variables": {"properties": {"memory_mb": {"default": 128}}}}
    assert size_variables(template, "process") == {"memory_mb": None}
    assert size_variables(template, "kubernetes") == {"memory_mb": 128}


@pytest.mark.parametrize(
    ("pool_type", "name"),
    [("process", "memory_mb"), ("ecs", "memory"), ("azure-container-instance", "memory")],
)
def test_a_size_beyond_all_numbers_is_unknown(pool_type: str, name: str) -> None:
    assert memory_of({name: "1e306"}, pool_type) is None
