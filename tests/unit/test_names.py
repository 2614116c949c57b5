"""No two classes of the repository have the same name."""

import ast
from collections import defaultdict

from ..stacks import ROOT, ours


def test_no_two_classes_have_the_same_name() -> None:
    places = defaultdict(list)
    # Those of the fourth orchestrator are made to be copied (CONTRIBUTING.md).
    for path in (ROOT / name for name in ours("*.py") if not name.startswith("tests/fourth/files/")):
        if path.is_file():
            for statement in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(statement, ast.ClassDef):
                    places[statement.name].append(path.relative_to(ROOT).as_posix())
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
