"""Train the demo models from scratch: `python -m qexplore.zoo.train digits` (or `all`), seeded, on a CPU."""

from __future__ import annotations

import argparse
import time

import torch

from qexplore.workload import WORKLOADS
from qexplore.zoo import DEMOS
from qexplore.zoo.files import save_weights


def train(name: str, seed: int = 0) -> float:
    """Train the demo `name`, write its weights file, and return the float metric."""
    start = time.perf_counter()

    def show(message: str, fraction: float, **figures: float) -> None:
        loss = f"loss {figures['loss']:.4f}"
        print(f"\r{name}: {message}, {loss}, {fraction:4.0%}, {time.perf_counter() - start:.0f} s", end="", flush=True)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DEMOS[name].pretrain(show)
    path = save_weights(model, name)
    workload = WORKLOADS[name]()
    metric = workload.evaluate(workload.model)
    print(f"\n{name}: {workload.metric} {metric:.4f}, {path} ({path.stat().st_size:,} bytes)")
    return metric


def main() -> None:
    """Train the demos named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=[*DEMOS, "all"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in DEMOS if "all" in arguments.names else arguments.names:
        train(name, arguments.seed)


if __name__ == "__main__":
    main()
