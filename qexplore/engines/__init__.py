"""The only part that knows torch.ao: what quantizes a model, and what each engine can do."""

from qexplore.engines.conversion import Conversion, Layer, Probe, QuantizedTensor
from qexplore.engines.engine import ENGINES, Engine, resolve_engine, resolve_guard

__all__ = [
    "ENGINES",
    "Conversion",
    "Engine",
    "Layer",
    "Probe",
    "QuantizedTensor",
    "resolve_engine",
    "resolve_guard",
]
