"""The helpers of the browser tests work: labels, sliders, buttons, figures, themes and failing cells."""

from __future__ import annotations

import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.browser.lab import Lab, Server

CONTROLS = """
import ipywidgets as w
import plotly.graph_objects as go
from IPython.display import display

mode = w.Dropdown(description="Mode", options=["static", "dynamic"])
bits = w.IntSlider(description="Bits", min=2, max=8, value=8)
fuse = w.Checkbox(description="Fuse", value=False)
button = w.Button(description="Quantize")
said = w.HTML()
figure = go.FigureWidget(go.Bar(x=["a", "b"], y=[1, 2]), layout={"height": 250, "title": {"text": "Before"}})

def show(_):
    said.value = f"{mode.value} with {bits.value} bits, fuse {fuse.value}"
    with figure.batch_update():
        figure.layout.title.text = f"At {bits.value} bits"

button.on_click(show)
display(w.VBox([w.HBox([mode, bits, fuse, button]), said, figure]))
"""


def write_notebook(server: Server, name: str, *cells: str) -> str:
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    notebook = new_notebook(cells=[new_code_cell(cell.strip()) for cell in cells], metadata={"kernelspec": kernel})
    nbformat.write(notebook, server.root / name)
    return name


def test_controls_are_found_by_their_labels(lab: Lab, server: Server) -> None:
    lab.open_notebook(write_notebook(server, "controls.ipynb", CONTROLS))
    lab.run_all()
    lab.wait_for_text("Before")
    lab.choose("Mode", "dynamic")
    lab.slide("Bits", 5)
    lab.check("Fuse")
    lab.click("Quantize")
    lab.wait_for_text("dynamic with 5 bits, fuse True")
    lab.wait_for_text("At 5 bits")
    assert "dynamic with 5 bits" in lab.text()
    assert lab.page.locator(".jp-Dialog, .Toastify__toast").count() == 0
    assert lab.screenshot("harness").stat().st_size > 10_000


def test_a_failing_cell_is_reported(lab: Lab, server: Server) -> None:
    lab.open_notebook(write_notebook(server, "failing.ipynb", "print('first')", "1 / 0", "print('never')"))
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        lab.run_all()
    assert "first" in lab.text()
    assert "never" not in lab.text()


@pytest.mark.parametrize("lab", [(900, 600)], indirect=True)
def test_theme_page_size_and_running_again(lab: Lab, server: Server) -> None:
    server.set_theme("dark")
    lab.open_notebook(write_notebook(server, "theme.ipynb", "import sys; print(sys.executable, len(In))"))
    lab.run_all()
    assert lab.text().split() == [sys.executable, "2"]
    lab.run_all()
    assert lab.text().split() == [sys.executable, "3"]
    assert lab.page.evaluate("document.body.dataset.jpThemeName") == "JupyterLab Dark"
    assert lab.page.viewport_size == {"width": 900, "height": 600}
