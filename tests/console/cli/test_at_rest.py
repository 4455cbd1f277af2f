"""What may be asked of an installation at rest is what its files answer."""

from __future__ import annotations

import ast
import inspect

from pilotage.console.cli.client import OFFLINE
from pilotage.flows.api.offline import OfflineReader


def test_whatever_the_files_can_answer_is_asked_of_them() -> None:
    cases = {
        case.pattern.value.value
        for case in ast.walk(ast.parse(inspect.getsource(inspect.getmodule(OfflineReader) or OfflineReader)))
        if isinstance(case, ast.match_case)
        and isinstance(case.pattern, ast.MatchValue)
        and isinstance(case.pattern.value, ast.Constant)
    }
    assert cases == OFFLINE
