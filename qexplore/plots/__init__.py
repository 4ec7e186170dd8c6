"""One file per figure: pure functions from a run (or several) to a plotly Figure.

Importing this enters the figures of one run in `PLOTS`, in the order of the explorer's tabs.
"""

# isort: off
from qexplore.plots.tabs import PLOTS, Plot
from qexplore.plots.layer_error import layer_error
from qexplore.plots.activation_histogram import activation_histogram
from qexplore.plots.weight_histogram import weight_histogram
from qexplore.plots.channel_ranges import channel_ranges
from qexplore.plots.size import size
from qexplore.plots.speed import speed
from qexplore.plots.training import training
from qexplore.plots.pictures import pictures
from qexplore.plots.runs_overview import runs_overview
# isort: on

__all__ = [
    "PLOTS",
    "Plot",
    "activation_histogram",
    "channel_ranges",
    "layer_error",
    "pictures",
    "runs_overview",
    "size",
    "speed",
    "training",
    "weight_histogram",
]
