"""A plotly figure that stays and is updated in place."""

from __future__ import annotations

import plotly.graph_objects as go


def live_figure() -> go.FigureWidget:
    """An empty figure widget that follows the width of its place."""
    widget = go.FigureWidget()
    widget.update_layout(autosize=True)
    widget._config = {"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": ["lasso2d", "select2d"]}
    return widget


def redraw(widget: go.FigureWidget, figure: go.Figure) -> None:
    """Make `widget` show `figure`; traces are updated in place where their number and types are the same.

    Width and height are left to the widget's place (see `fit`): plotly.js freezes the width when it is told a height.
    """
    layout = figure.layout.to_plotly_json() | {"autosize": True}
    layout.pop("height", None)
    same = [trace.type for trace in widget.data] == [trace.type for trace in figure.data]
    if not same:
        widget.data = ()
        widget.add_traces(list(figure.data))
    with widget.batch_update():
        if same:
            for old, new in zip(widget.data, figure.data, strict=True):
                old.update(new.to_plotly_json(), overwrite=True)
        widget.update_layout(layout, overwrite=True)
