"""The runner of Cedar's conformance corpus tells right answers from wrong ones, on a corpus made by hand."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.policies.conformance import main

SCHEMA = """
entity User in [Group] { level: Long };
entity Group;
entity Photo;
action read, write in [all];
action all;
action view in [read] appliesTo { principal: [User], resource: [Photo], context: { n: Long } };
action edit in [write] appliesTo { principal: [User], resource: [Photo], context: { n: Long } };
"""
POLICIES = """
permit (principal in Group::"staff", action in Action::"all", resource);
forbid (principal, action == Action::"edit", resource) when { principal.level < 3 };
forbid (principal, action, resource) when { context.n + 9223372036854775807 < 0 };
"""
ENTITIES = [
    {
        "uid": {"type": "User", "id": "ann"},
        "attrs": {"level": 2},
        "parents": [{"type": "Group", "id": "staff"}],
    },
    {"uid": {"type": "Group", "id": "staff"}, "attrs": {}, "parents": []},
    {"uid": {"type": "Photo", "id": "p"}, "attrs": {}, "parents": []},
]


def request(action: str, n: int, decision: str, reason: list[str], errors: list[str]) -> dict[str, Any]:
    return {
        "description": f"ann {action}s with {n}",
        "principal": {"type": "User", "id": "ann"},
        "action": {"type": "Action", "id": action},
        "resource": {"type": "Photo", "id": "p"},
        "context": {"n": n},
        "validateRequest": True,
        "decision": decision,
        "reason": reason,
        "errors": errors,
    }


RIGHT = [
    request("view", 0, "allow", ["policy0"], []),
    request("edit", 0, "deny", ["policy1"], []),
    # Cedar itself lets this through: a forbid that fails is passed over. That is why the gate denies on errors.
    request("view", 1, "allow", ["policy0"], ["policy2"]),
]


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., Path]:
    """Writes a corpus of one test with these requests."""

    def make(requests: list[dict[str, Any]], *, valid: bool = True) -> Path:
        root = tmp_path / "corpus-tests"
        root.mkdir()
        (root / "one.cedarschema").write_text(SCHEMA)
        (root / "one.cedar").write_text(POLICIES)
        (root / "one.entities.json").write_text(json.dumps(ENTITIES))
        told = {
            "schema": "corpus-tests/one.cedarschema",
            "policies": "corpus-tests/one.cedar",
            "entities": "corpus-tests/one.entities.json",
            "shouldValidate": valid,
            "requests": requests,
        }
        (root / "one.json").write_text(json.dumps(told))
        return root

    return make


def test_right_answers_pass(corpus: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(corpus(RIGHT))]) == 0
    assert "1 tests, 3 requests; none answered otherwise" in capsys.readouterr().out


WRONG = {
    "another decision": RIGHT[0] | {"decision": "deny"},
    "another reason": RIGHT[1] | {"reason": ["policy0"]},
    "no error": RIGHT[2] | {"errors": []},
    "an error of another policy": RIGHT[2] | {"errors": ["policy1"]},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_answer_fails(
    corpus: Callable[..., Path], capsys: pytest.CaptureFixture[str], wrong: dict[str, Any]
) -> None:
    assert main([str(corpus([*RIGHT, wrong]))]) == 1
    told = capsys.readouterr().out
    # once for all policies, once for those that can match
    assert "2 answered otherwise" in told
    assert wrong["description"] in told


def test_policies_that_should_not_have_validated_fail(corpus: Callable[..., Path]) -> None:
    assert main([str(corpus(RIGHT, valid=False))]) == 1


def test_old_requests_that_leave_somebody_open_are_told(
    corpus: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(corpus([*RIGHT, RIGHT[0] | {"principal": None}]))]) == 0
    assert "1 with unspecified entities left out" in capsys.readouterr().out


def test_an_archive_will_do(corpus: Callable[..., Path], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "corpus-tests.tar.gz", "w:gz") as archive:
        archive.add(corpus(RIGHT), "corpus-tests")
    assert main([str(tmp_path / "corpus-tests.tar.gz")]) == 0


@pytest.mark.parametrize("named", [[], ["/no/such/place"], ["{empty}"], ["{file}"]])
def test_without_a_corpus_it_says_what_to_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], named: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no archive")
    arguments = [one.format(empty=tmp_path / "empty", file=tmp_path / "file") for one in named]
    assert main(arguments) == 2
    assert "make conformance CORPUS=" in capsys.readouterr().err


def test_a_test_whose_files_are_missing_is_told(
    corpus: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = corpus(RIGHT)
    (root / "one.cedar").unlink()
    assert main([str(root)]) == 2
    assert "one.cedar" in capsys.readouterr().err


def test_the_front_door_fails_without_a_corpus() -> None:
    script = Path(__file__).with_name("conformance.py")
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "No corpus is named" in ended.stderr


def example(root: Path, *, more: str = "", policies: str = POLICIES.rsplit("forbid", 1)[0]) -> Path:
    """Writes an example: Ann views what she may and edits what she may not."""
    folder = root / "photos"
    for wanted, action in (("ALLOW", "view"), ("DENY", "edit")):
        (folder / wanted).mkdir(parents=True)
        asked = {"principal": 'User::"ann"', "action": f'Action::"{action}"', "resource": 'Photo::"p"'}
        (folder / wanted / f"ann_{action}s.json").write_text(json.dumps(asked | {"context": {"n": 0}}))
    (folder / "policies.cedar").write_text(policies + more)
    (folder / "policies.cedarschema").write_text(SCHEMA)
    (folder / "entities.json").write_text(json.dumps(ENTITIES))
    return root


def test_examples_with_their_decisions_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(example(tmp_path))]) == 0
    assert "1 tests, 2 requests; none answered otherwise" in capsys.readouterr().out


def test_an_example_that_is_answered_otherwise_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(example(tmp_path, more="forbid (principal, action, resource);"))]) == 1
    assert "photos: ann_views: all policies say Deny, not ALLOW" in capsys.readouterr().out


def test_examples_of_templates_are_told_to_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], corpus: Callable[..., Path]
) -> None:
    example(corpus(RIGHT), policies="permit (principal == ?principal, action, resource);")
    assert main([str(tmp_path / "corpus-tests")]) == 0
    assert "1 examples of templates left out" in capsys.readouterr().out
