"""One file per figure: pure functions from a run, several, or a prediction to a plotly Figure.

Importing this enters figures in `PLOTS`, in the order of the explorer's tabs.
"""

# isort: off
from qexplore.plots.tabs import PLOTS, Plot
from qexplore.plots.layer_error import layer_error
from qexplore.plots.three_way import three_way
from qexplore.plots.activation_histogram import activation_histogram
from qexplore.plots.weight_histogram import weight_histogram
from qexplore.plots.channel_ranges import channel_ranges
from qexplore.plots.codes import codes
from qexplore.plots.observers import observers
from qexplore.plots.clip_range import clip_range
from qexplore.plots.size import size
from qexplore.plots.speed import speed
from qexplore.plots.training import training
from qexplore.plots.pictures import pictures
from qexplore.plots.runs_overview import runs_overview
from qexplore.plots.ledger import ledger_bars
from qexplore.plots.model_graph import model_graph
from qexplore.plots.sensitivity import sensitivity_ranks
# isort: on

__all__ = [
    "PLOTS",
    "Plot",
    "activation_histogram",
    "channel_ranges",
    "clip_range",
    "codes",
    "layer_error",
    "ledger_bars",
    "model_graph",
    "observers",
    "pictures",
    "runs_overview",
    "sensitivity_ranks",
    "size",
    "speed",
    "three_way",
    "training",
    "weight_histogram",
]
