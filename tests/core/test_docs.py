"""The worked example of docs/new-task.md runs as it stands, and learns."""

import math
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"


def test_the_worked_example_of_a_new_task_runs_and_learns() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "new-task.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    exec(compile("\n".join(blocks), "new-task.md", "exec"), names)
    assert names["history"].curves["brighter_half"][-1][1] < 0.5 * math.log(2)
