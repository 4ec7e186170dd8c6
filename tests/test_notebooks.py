"""Every notebook runs from top to bottom, has no outputs, answers its questions and checks its exercises."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from qexplore.lesson.exercise import EXERCISES
from tests import lessons

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(path for path in FOLDER.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
each_notebook = pytest.mark.parametrize(
    "path", NOTEBOOKS, ids=[path.relative_to(FOLDER).as_posix() for path in NOTEBOOKS]
)
CHECK = re.compile(r'^lesson\.check\("([^"]+)".*\Z', re.MULTILINE | re.DOTALL)
SOLUTION = re.compile(r"\A<details><summary>Solution</summary>\n\n.*?```python\n(.*?)```.*</details>\Z", re.DOTALL)
REVEAL = """
from qexplore.widgets.question import Question

questions = [each for each in Out.values() if isinstance(each, Question)]
for each in questions:
    each.given.value = each.given.options[0] if hasattr(each.given, "options") else "1"
    each.commit.click()
    assert each.answer is not None, each.error_panel.message
len(questions)
"""
WRONG = {
    name: answers
    for module in iter_modules(lessons.__path__)
    for name, answers in import_module(f"tests.lessons.{module.name}").WRONG.items()
}


@dataclass(frozen=True)
class Asked:
    """An exercise of a notebook: the cell that asks (its position), the call that checks, the solution's code."""

    name: str
    position: int
    check: str
    solution: str


def asked(notebook: nbformat.NotebookNode) -> list[Asked]:
    """The exercises; each must have its solution folded away in the next cell."""
    found = []
    for position, cell in enumerate(notebook.cells):
        call = CHECK.search(cell.source) if cell.cell_type == "code" else None
        if call is None:
            continue
        solution = SOLUTION.match(notebook.cells[position + 1].source)
        assert solution, f"The cell after the exercise {call[1]!r} has no folded solution."
        found.append(Asked(call[1], position, call[0], solution[1]))
    return found


def test_there_are_notebooks() -> None:
    assert FOLDER / "00_explorer.ipynb" in NOTEBOOKS, "notebooks/00_explorer.ipynb is missing."


def test_every_exercise_is_asked_in_one_notebook_and_has_two_wrong_answers() -> None:
    names = [each.name for path in NOTEBOOKS for each in asked(nbformat.read(path, as_version=4))]
    assert sorted(names) == sorted(EXERCISES)
    assert {name: len(answers) for name, answers in WRONG.items()} == dict.fromkeys(EXERCISES, 2)


@each_notebook
def test_notebook_is_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.get("kernelspec", {}).get("name") == "python3", "It needs the kernelspec python3."
    assert "widgets" not in notebook.metadata, "It has saved widgets: run `nbstripout --keep-id` on it."
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs, f"Cell {cell.id} has outputs: run `nbstripout --keep-id` on it."
            assert cell.execution_count is None, f"Cell {cell.id} has a count: run `nbstripout --keep-id` on it."


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(600)
@each_notebook
def test_notebook_runs_and_its_exercises_answer(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The cells as they are, then below them every exercise's solution and wrong answers, in the same kernel."""
    notebook = nbformat.read(path, as_version=4)
    exercises, own = asked(notebook), len(notebook.cells)
    answers = [(each, code) for each in exercises for code in (each.solution, *(code for code, _ in WRONG[each.name]))]
    notebook.cells += [new_code_cell(f"{code}\n\n{each.check}") for each, code in answers] + [new_code_cell(REVEAL)]
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    started, took = time.perf_counter(), 0.0
    with client.setup_kernel():
        for position, cell in enumerate(notebook.cells):
            if position == own:
                took = time.perf_counter() - started
            client.execute_cell(cell, position)
    with capsys.disabled():
        print(f"\n{path.name} ran in {took:.1f} s, with all answers in {time.perf_counter() - started:.1f} s ", end="")
    for each in exercises:
        assert result(notebook.cells[each.position]) == f"Not yet. {EXERCISES[each.name].start}"
    questions = sum("lesson.ask(" in cell.source for cell in notebook.cells[:own] if cell.cell_type == "code")
    assert result(notebook.cells[-1]) == str(questions)
    verdicts = [result(cell) for cell in notebook.cells[own:-1]]
    for number, each in enumerate(exercises):
        solved, *wrong = verdicts[3 * number : 3 * number + 3]
        assert solved == f"Right. {EXERCISES[each.name].right}", each.name
        for (code, hint), said in zip(WRONG[each.name], wrong, strict=True):
            assert said.startswith("Not yet. ") and hint in said, f"{each.name}, answered {code!r}: {said}"


def result(cell: nbformat.NotebookNode) -> str:
    """The value at the end of a cell, as text."""
    results = [output for output in cell.outputs if output.output_type == "execute_result"]
    assert len(results) == 1, f"The cell {cell.source!r} shows no result."
    return str(results[0]["data"]["text/plain"])
