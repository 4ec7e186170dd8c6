"""The demo workloads; importing this package registers them, in the order they are shown."""

from importlib import import_module

DEMOS = {name: import_module(f"qexplore.zoo.{name}") for name in ("digits", "digits_mobile", "pydoc_lstm", "denoise")}
