"""A plotly figure in the page that is redrawn whole with `Plotly.react`.

plotly's own FigureWidget brings 5 MB of script for each figure, keeps axis settings of the figure shown before, and
stays at 700 pixels (plotly#4998); this widget asks for plotly.js once a page and follows the width of its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import plotly.graph_objects as go
import traitlets
from plotly.offline import get_plotlyjs

SCRIPT = """
function library(model, ready) {
  // One copy of plotly.js serves all figures of the page; the kernel sends it when first asked. The figure that asked
  // may be gone before the answer comes, so each one looks for it, and one of them asks again.
  const look = () => {
    if (window.Plotly) {
      clearInterval(timer);
      ready(window.Plotly);
    } else if (!(Date.now() - window.qexploreAsked < 15000)) {
      window.qexploreAsked = Date.now();
      model.send({ kind: "plotly.js" });
    }
  };
  model.on("msg:custom", (message, buffers) => {
    if (message.kind !== "plotly.js" || window.Plotly) return;
    const script = document.createElement("script");
    script.src = URL.createObjectURL(new Blob(buffers, { type: "text/javascript" }));
    document.head.append(script);
  });
  const timer = setInterval(look, 50);
  look();
  return () => clearInterval(timer);
}

export default {
  render({ model, el }) {
    const place = document.createElement("div");
    place.style.width = "100%";
    place.className = "qx-figure";
    el.append(place);
    let plotly = null, listening = false;
    const draw = () => {
      const text = model.get("figure");
      if (!plotly || !text) return;
      const { data, layout } = JSON.parse(text);
      place.style.height = `${layout.height}px`;
      delete layout.height;  // both sides follow the place
      layout.autosize = true;
      plotly.react(place, data, layout, { displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] });
      if (!listening) {
        place.on("plotly_click", ({ points }) => model.send({ kind: "click", customdata: points[0].customdata }));
        listening = true;
      }
    };
    const sizes = new ResizeObserver(() => {
      if (place._fullLayout && place.clientWidth && place._fullLayout.width !== place.clientWidth) {
        plotly.Plots.resize(place);
      }
    });
    const stop = library(model, (loaded) => {
      plotly = loaded;
      model.on("change:figure", draw);
      sizes.observe(place);
      draw();
    });
    return () => {
      stop();
      model.off("change:figure", draw);
      sizes.disconnect();
      if (plotly) plotly.purge(place);
    };
  },
};
"""


class LiveFigure(anywidget.AnyWidget):
    """Shows one figure at a time.

    Args:
        on_click: called with the customdata of a point that is clicked.

    Attributes:
        shown: the figure; None before the first `draw`.
    """

    _esm = SCRIPT
    _css = """
    .qx-figure svg text { fill: var(--jp-ui-font-color1) !important; }
    .qx-figure .hoverlayer text { fill: #fff !important; }
    """
    figure = traitlets.Unicode("").tag(sync=True)

    def __init__(self, on_click: Callable[[Any], None] | None = None) -> None:
        self._on_click = on_click
        self.shown: go.Figure | None = None
        super().__init__()
        self.on_msg(self._answer)

    def draw(self, figure: go.Figure) -> None:
        """Show `figure` in place of the one before."""
        self.shown = figure
        self.figure = figure.to_json()

    def _answer(self, widget: Any, message: Any, buffers: Any) -> None:
        if isinstance(message, dict) and message.get("kind") == "plotly.js":
            self.send({"kind": "plotly.js"}, buffers=[get_plotlyjs().encode()])
        elif isinstance(message, dict) and message.get("kind") == "click" and self._on_click is not None:
            self._on_click(message.get("customdata"))


def shown(figure: go.Figure) -> LiveFigure:
    """A figure as a widget, to display in a notebook."""
    widget = LiveFigure()
    widget.draw(figure)
    return widget
