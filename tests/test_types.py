"""What the pages show passes `mypy --strict`, and what is wrong does not."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

WRONG = """
import redraft

redraft.Generat  # type: ignore[attr-defined]
redraft.IPR(iterations="6")  # type: ignore[arg-type]
redraft.IPR(select=redraft.Parallel(4))  # type: ignore[arg-type]
redraft.IPR(keep=redraft.Uniform())  # type: ignore[arg-type]
redraft.Generate(redraft.Sweep())  # type: ignore[arg-type]
redraft.IterRef(reward=0.1)  # type: ignore[arg-type]
redraft.samplers.Rule(redraft.samplers.Judge())  # type: ignore[arg-type]
redraft.run(redraft.Parallel(4), None, None)  # type: ignore[arg-type]
"""


def test_the_pages_pass_strict_types_and_wrong_parts_do_not(tmp_path):
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        (tmp_path / f"page_{page.stem}.py").write_text("\n".join(blocks))
    (tmp_path / "wrong.py").write_text(WRONG)  # an ignored line without an error is one
    check = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", *tmp_path.glob("*.py")]
    found = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "src" / "redraft" / "py.typed").is_file()
