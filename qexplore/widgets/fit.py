"""Keeps plotly figures as wide as their place.

A FigureWidget is drawn before it is in the page and then stays at plotly's default width (plotly#4998); plotly
measures again when the window says that it was resized.
"""

from __future__ import annotations

import anywidget


class FitFigures(anywidget.AnyWidget):
    """Invisible; makes the figures beside and below it fit when they appear and when their place changes."""

    _esm = """
    export default {
      render({ el }) {
        let waiting = 0;
        const fit = () => {
          cancelAnimationFrame(waiting);
          waiting = requestAnimationFrame(() => window.dispatchEvent(new Event("resize")));
        };
        let place = null;
        const sizes = new ResizeObserver(fit);
        const figures = new MutationObserver((records) => {
          const drawn = (node) => node.classList?.contains("plot-container") || node.querySelector?.(".plot-container");
          if (records.some((record) => [...record.addedNodes].some(drawn))) fit();
        });
        const attach = setInterval(() => {
          place = el.closest(".qx-explorer");
          if (!place) return;
          clearInterval(attach);
          sizes.observe(place);
          figures.observe(place, { childList: true, subtree: true });
          fit();
        }, 50);
        return () => { clearInterval(attach); sizes.disconnect(); figures.disconnect(); };
      }
    };
    """
