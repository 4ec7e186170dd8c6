"""Every notebook runs from top to bottom, and is committed without outputs."""

from __future__ import annotations

import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(path for path in FOLDER.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
each_notebook = pytest.mark.parametrize(
    "path", NOTEBOOKS, ids=[path.relative_to(FOLDER).as_posix() for path in NOTEBOOKS]
)


def test_there_are_notebooks() -> None:
    assert FOLDER / "00_explorer.ipynb" in NOTEBOOKS, "notebooks/00_explorer.ipynb is missing."


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
@pytest.mark.timeout(600)
@each_notebook
def test_notebook_runs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    start = time.perf_counter()
    client.execute()
    print(f"{path.name} ran in {time.perf_counter() - start:.1f} s")
