"""A person plays with one tensor in JupyterLab: Run All, move controls, see facts and figure follow."""

from __future__ import annotations

import statistics
import time

import pytest
from playwright.sync_api import Locator, expect

from qexplore.numerics.mapping import AffineMapping
from qexplore.numerics.samples import sample
from tests.browser.lab import Lab, Server

NOTEBOOK = "01_affine_mapping.ipynb"
RUN_SECONDS = 120
USABLE_SECONDS = 60  # a bound against hanging
TITLE = ".js-plotly-plot .gtitle"


class Playground(Lab):
    """The first playground of the page, with what a person does there."""

    @property
    def outputs(self) -> Locator:
        return self.page.locator(".jp-Notebook .qx-playground").first

    def fact(self, title: str) -> Locator:
        """Figure and note of a card."""
        return self.outputs.locator(".qx-card").filter(has=self.page.get_by_text(title, exact=True))

    def field(self, label: str) -> Locator:
        return self.outputs.get_by_label(label, exact=True).and_(self.page.locator("input"))

    def type(self, label: str, value: float) -> None:
        self.field(label).fill(str(value))
        self.field(label).press("Enter")


def opened(lab: Lab) -> Playground:
    lab.open_notebook(NOTEBOOK)
    lab.run_all(RUN_SECONDS)
    playground = Playground(lab.page, lab.server)
    playground.outputs.scroll_into_view_if_needed()
    expect(playground.outputs.locator(".js-plotly-plot .main-svg").first).to_be_visible(timeout=USABLE_SECONDS * 1000)
    return playground


def test_controls_move_facts_and_figure(lab: Lab) -> None:
    playground = opened(lab)
    values = sample("normal")
    lo, hi = float(values.min()), float(values.max())
    whole = AffineMapping.of_range(lo, hi, 8, False, False)
    expect(playground.fact("Scale")).to_contain_text(f"{whole.scale:.4g}")  # the page moves no control by itself
    expect(playground.fact("Levels used")).to_contain_text("of 256")
    expect(playground.outputs.locator(TITLE)).to_contain_text("normal")

    seconds = []
    for bits in (7, 6, 5, 4, 3):
        started = time.perf_counter()
        playground.slide("Bits", bits)
        expect(playground.fact("Levels used")).to_contain_text(f"of {2**bits}")
        seconds.append(time.perf_counter() - started)
    print(f"Bits moved to facts changed: {1000 * statistics.median(seconds):.0f} ms, with Playwright's own time")
    expect(playground.outputs.locator(".legend")).to_contain_text("all 8 levels")
    expect(playground.fact("Clipped")).to_contain_text("0 %")

    playground.type("Clip above this value", 2)
    expect(playground.fact("Clipped")).not_to_contain_text("0 %of")
    narrow = AffineMapping.of_range(lo, 2.0, 3, False, False)
    expect(playground.field("Scale")).to_have_value(f"{narrow.scale:.6g}")
    playground.choose("Scheme", "symmetric")
    expect(playground.field("Zero point")).to_be_disabled()
    playground.choose("Scheme", "affine")
    expect(playground.field("Zero point")).to_be_enabled()
    playground.type("Scale", 0.5)
    expect(playground.field("Clip above this value")).not_to_have_value("2")  # what is typed before is overwritten
    playground.type("Zero point", 0)
    expect(playground.field("Clip above this value")).to_have_value("3.5")
    playground.type("Value x", 1.3)
    expect(playground.outputs.locator(".qx-worked")).to_contain_text("clamp(round(2.6) + 0)")
    playground.type("Scale", -1)
    expect(playground.outputs.get_by_role("alert")).to_contain_text("give a number above 0")
    playground.click("Whole range")
    expect(playground.outputs.get_by_role("alert")).to_be_hidden()
    expect(playground.fact("Levels used")).to_contain_text("8 of 8")


def test_another_tensor_keeps_what_the_kernel_chose(lab: Lab) -> None:
    playground = opened(lab)
    playground.type("Clip above this value", 2)
    playground.choose("Tensor", "with outliers")
    playground.slide("Bits", 5)
    expect(playground.fact("Levels used")).to_contain_text("of 32")
    values = sample("with outliers")
    expect(playground.field("Clip above this value")).to_have_value(f"{float(values.max()):.6g}")
    expect(playground.field("Clip below this value")).to_have_value(f"{float(values.min()):.6g}")
    playground.choose("Tensor", "a layer's weights")
    playground.choose("Layer", "blocks.0.depthwise (digits_mobile)")
    expect(playground.outputs.locator(TITLE)).to_contain_text("blocks.0.depthwise (digits_mobile)", timeout=30_000)
    handle = playground.outputs.locator(".noUi-handle").last
    before = playground.field("Clip above this value").input_value()
    handle.press("ArrowLeft")
    expect(playground.field("Clip above this value")).not_to_have_value(before)


@pytest.mark.parametrize("lab", [(1400, 900), (900, 900)], indirect=True, ids=["1400", "900"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_the_page(lab: Lab, server: Server, theme: str) -> None:
    server.set_theme("dark" if theme == "dark" else "light")
    playground = opened(lab)
    playground.slide("Bits", 3)
    playground.type("Clip above this value", 2)
    expect(playground.fact("Clipped")).not_to_contain_text("0 %of")
    plot = playground.outputs.locator(".js-plotly-plot")
    place = plot.bounding_box()
    whole = playground.outputs.bounding_box()
    assert place and whole and place["width"] >= 380
    assert place["x"] + place["width"] <= whole["x"] + whole["width"] + 1
    assert plot.evaluate("p => Math.abs(p.querySelector('.main-svg').clientWidth - p.clientWidth)") <= 2
    for text in plot.locator(".ytitle, .y2title, .y4title, .xtitle, .legendtext").all():
        box = text.bounding_box()
        assert box and place["x"] - 1 <= box["x"] and box["x"] + box["width"] <= place["x"] + place["width"] + 1
    assert {"lo", "hi"} <= set(plot.locator(".textpoint").all_text_contents())
    playground.outputs.evaluate("place => place.scrollIntoView({block: 'start'})")
    playground.screenshot(f"playground-{lab.page.viewport_size['width']}-{theme}")
