"""The story of notebook 08 by clicking: a broken model, its cause, a fix expected and measured."""

from __future__ import annotations

import nbformat
import pytest
from playwright.sync_api import expect

from tests.browser.lab import Lab, Server

READY_SECONDS = 120
CELL = """import qexplore as qx
qx.explore(qx.workload("digits_mobile"), qx.Recipe(weight=qx.TensorSpec(symmetric=True)))"""


@pytest.mark.timeout(400)
def test_a_broken_model_is_mended_by_clicking(lab: Lab, server: Server) -> None:
    kernel = {"name": "python3", "display_name": "Python 3"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel}, cells=[nbformat.v4.new_code_cell(CELL)])
    nbformat.write(notebook, server.root / "sources.ipynb")
    lab.open_notebook("sources.ipynb")
    lab.run_all(READY_SECONDS)
    expect(lab.outputs.locator(".qx-predicted").first).to_be_visible(timeout=READY_SECONDS * 1000)
    lab.page.get_by_role("tab", name="Error sources", exact=True).click()
    cause = lab.outputs.locator(".qx-finding").first
    expect(cause).to_contain_text("channel imbalance in blocks.0.depthwise", timeout=READY_SECONDS * 1000)
    bars = lab.outputs.locator(".qx-sources .js-plotly-plot .bars path")
    expect(bars.first).to_be_visible(timeout=30_000)
    lab.screenshot("sources-bars")

    lab.outputs.locator(".qx-sources .js-plotly-plot .trace.bars").nth(2).locator("path").nth(3).click(force=True)
    expect(lab.outputs.get_by_label("Layer", exact=True)).to_have_value("blocks.1.depthwise")
    expect(lab.outputs.locator(".qx-sources")).to_contain_text("blocks.1.depthwise (Conv2d + BatchNorm2d + ReLU)")
    lab.choose("View", "the model as a graph")
    expect(lab.outputs.locator(".qx-sources .js-plotly-plot .gtitle")).to_contain_text("The model")
    lab.screenshot("sources-graph")

    lab.outputs.locator(".qx-finding").first.get_by_role("button", name="equalize channels across layers").click()
    expect(lab.outputs.get_by_label("Equalize", exact=True)).to_be_checked()
    lab.click("Quantize")
    expect(lab.outputs.locator(".qx-sources")).to_contain_text("output SQNR measured 31", timeout=READY_SECONDS * 1000)
    lab.screenshot("sources-mended")
