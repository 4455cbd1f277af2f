"""The memory of a run in each pool type's own words: read, changed, refused where Prefect would drop it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.telemetry.pool_cpu import FARGATE, change_cpu, cpu_of
from pilotage.telemetry.pool_memory import (
    ADAPTERS,
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


def test_fargate_gets_more_cpu_where_no_larger_size_goes_with_what_it_has() -> None:
    found = change("ecs", {"cpu": 256, "memory": 2048}, 3500)
    assert isinstance(found, MemoryChange)
    assert dict(found.variables) == {"memory": 3072, "cpu": 512}
    assert isinstance(change("ecs", {"cpu": 16_384, "memory": 122_880}, 200_000), str)
    assert allowed_sizes({"cpu": 256, "memory": 2048}, "ecs")[:5] == (512, 1024, 2048, 3072, 4096)


@pytest.mark.parametrize("pool_type", ["cloud-run", "cloud-run-v2"])
@pytest.mark.parametrize(
    ("before", "memory_mb", "after"),
    [
        ({"cpu": "1000m", "memory": "4Gi"}, 6144, {"memory": "6144Mi", "cpu": "2000m"}),
        ({"cpu": "1", "memory": "2Gi"}, 4096, {"memory": "4096Mi"}),
        ({"memory": "4Gi"}, 9000, {"memory": "9000Mi", "cpu": "4000m"}),
        ({"cpu": "8000m", "memory": "16Gi"}, 24_576, {"memory": "24576Mi"}),
        ({"cpu": "400m", "memory": "512Mi"}, 768, {"memory": "768Mi", "cpu": "1000m"}),
    ],
)
def test_cloud_run_gets_the_cpu_that_a_size_needs(
    pool_type: str, before: dict[str, Any], memory_mb: int, after: dict[str, Any]
) -> None:
    found = change(pool_type, before, memory_mb)
    assert isinstance(found, MemoryChange), found
    assert dict(found.variables) == after


def test_more_memory_than_the_largest_machine_has_is_refused() -> None:
    assert "has no size above 32768" in str(change("cloud-run-v2", {"cpu": "8", "memory": "32Gi"}, 40_000))


@pytest.mark.parametrize("pool_type", ["ecs", "cloud-run", "cloud-run-v2"])
def test_a_size_that_needs_a_cpu_which_the_template_lacks_is_refused(pool_type: str) -> None:
    template = REAL[pool_type]
    known = {name: told for name, told in template["variables"]["properties"].items() if name != "cpu"}
    used = placeholders(template["job_configuration"])
    before = {"memory": 8192} if pool_type == "ecs" else {"memory": "4Gi"}
    found = change_memory(pool_type, known, used, before, 10_240)
    assert isinstance(found, str)
    assert "no variable 'cpu', so Prefect would drop it" in found


@pytest.mark.parametrize(
    ("pool_type", "before", "milli", "after"),
    [
        ("kubernetes", {"cpu_limit": "500m", "cpu_request": "250m"}, 2000, {"cpu_limit": "2000m", "cpu_request": "1000m"}),
        ("kubernetes", {"cpu_request": "0.5"}, 1000, {"cpu_request": "1000m"}),
        ("kubernetes", {}, 1500, {"cpu_limit": "1500m"}),
        ("snowpark-container-service", {"cpu_limit": "1"}, 2000, {"cpu_limit": "2000m"}),
        ("ecs", {"cpu": 1024}, 2000, {"cpu": 2048}),
        ("ecs:push", {"cpu": "512"}, 1000, {"cpu": 1024}),
        ("cloud-run-v2", {"cpu": "1000m"}, 2000, {"cpu": "2000m"}),
        ("azure-container-instance", {"cpu": 1.0}, 1500, {"cpu": 1.5}),
    ],
)  # fmt: skip
def test_the_cpu_is_written_in_the_types_own_form(
    pool_type: str, before: dict[str, Any], milli: int, after: dict[str, Any]
) -> None:
    template = REAL[pool_type.partition(":")[0]]
    used = placeholders(template["job_configuration"])
    properties = template["variables"]["properties"]
    assert change_cpu(pool_type, properties, used, before, milli) == after
    assert cpu_of(after, pool_type) in (milli, (after.get("cpu_request") and milli))


def test_a_pool_whose_worker_reads_no_cpu_is_refused() -> None:
    template = REAL["docker"]
    used = placeholders(template["job_configuration"])
    assert "reads no CPU" in str(change_cpu("docker", template["variables"]["properties"], used, {}, 1000))


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
