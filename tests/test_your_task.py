"""What docs/your_task.md and its examples say works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your_task.md").read_text()
DETECTION = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "def f1" in block)


def test_detection_by_a_metric_of_ones_own(capsys):
    exec(compile(DETECTION, "your_task.md", "exec"), {"__name__": "your_task"})
    original, half = map(float, re.findall(r": (\d\.\d+)", capsys.readouterr().out))
    assert original > 0.8  # 0: it finds nothing, or not where
    assert half > 0.5


@pytest.mark.long
@pytest.mark.parametrize(("name", "higher"), [("segmentation", True), ("regression", False)])
def test_the_examples_beat_what_is_trivial(name, higher):
    printed = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py"), "8"], capture_output=True, text=True, check=True
    ).stdout
    original, pruned, trivial = (float(number) for number in re.findall(r": (?:\w+ )?(\d\.\d+)", printed))
    order = [trivial, pruned, original]
    assert order == sorted(order, reverse=not higher) or abs(pruned - original) < 0.01
    assert abs(pruned - trivial) > 5 * abs(pruned - original)
