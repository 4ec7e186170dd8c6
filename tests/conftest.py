"""Tiny seeded models and the workloads around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from qexplore.analysis import speed
from qexplore.batches import call, first_tensor
from qexplore.calibrate.observers import OBSERVERS
from qexplore.workload import Progress, Workload


class Block(nn.Module):
    """Two convolutions with BatchNorm and one ReLU module used twice, around a functional add."""

    def __init__(self, channels: int, inplace: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


class ResidualNet(nn.Module):
    """Images [N, 3, 8, 8] to 5 logits."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.block = Block(8, inplace)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.fc = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pool(self.block(self.stem(x))).flatten(1))


class LSTMModel(nn.Module):
    """Symbols [N, T] to logits [N, T, 20]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 16, batch_first=True)
        self.out = nn.Linear(16, 20)

    def forward(self, symbols: torch.Tensor) -> torch.Tensor:
        return self.out(self.lstm(self.embedding(symbols))[0])


class Gate(nn.Module):
    """Branches on its data, which torch.fx cannot trace."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 1e6:
            return x * 2
        return x


class Untraceable(nn.Module):
    """Vectors [N, 6] to 3 logits through a data-dependent branch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.gate = Gate()
        self.last = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.gate(torch.relu(self.first(x))))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Seeded normal values, whatever the global generator is at."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded_model(kind: type[nn.Module], *args: Any) -> nn.Module:
    """A model in eval mode, its BatchNorms with statistics and weights of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = kind(*args)
    for number, module in enumerate(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        for position, tensor in enumerate((module.weight.data, module.running_var, module.bias.data)):
            value = normal(len(tensor), seed=10 * number + position)
            tensor.copy_(value * 0.1 if position == 2 else value.abs() * 0.5 + 0.5)
    return model.eval()


def images() -> list[torch.Tensor]:
    """Three calibration batches for the residual net."""
    return [normal(8, 3, 8, 8, seed=seed) for seed in range(3)]


def accuracy(model: nn.Module) -> float:
    """Share of 64 seeded images with the class of a linear rule."""
    x = normal(64, 3, 8, 8, seed=7)
    labels = x.mean((2, 3)).argmax(1)
    with torch.no_grad():
        return float((model(x).argmax(1) == labels).float().mean())


def train_a_little(model: nn.Module, epochs: int, progress: Progress) -> None:
    """Four steps of gradient descent an epoch, always the same ones; the loss reported is the step's."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(epochs):
        for step in range(4):
            x = normal(16, 3, 8, 8, seed=step)
            loss = nn.functional.cross_entropy(model(x), x.mean((2, 3)).argmax(1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            progress("Training", (epoch * 4 + step + 1) / (4 * epochs), loss=loss.item())


def as_workload(model: nn.Module, *batches: Any, **settings: Any) -> Workload:
    """A workload around any model; it is judged by the mean of its output on the first batch."""

    def evaluate(candidate: nn.Module) -> float:
        with torch.no_grad():
            output = first_tensor(call(candidate, batches[0]))
        return 0.0 if output is None else float(output.float().mean())

    return Workload(**{"name": "tiny", "model": model, "calibration": list(batches), "evaluate": evaluate} | settings)


@pytest.fixture
def conv_net() -> nn.Module:
    """A small residual net with BatchNorm and ReLU modules."""
    return seeded_model(ResidualNet)


@pytest.fixture
def lstm_model() -> nn.Module:
    """A small LSTM language model."""
    return seeded_model(LSTMModel)


@pytest.fixture
def untraceable() -> nn.Module:
    """A model that branches on its data in module `gate`."""
    return seeded_model(Untraceable)


@pytest.fixture
def symbols() -> torch.Tensor:
    """One batch of symbols for the language model."""
    return torch.arange(24).reshape(4, 6) * 7 % 20


@pytest.fixture
def conv(conv_net: nn.Module) -> Workload:
    """The residual net with data, accuracy and training."""
    return as_workload(conv_net, *images(), evaluate=accuracy, train=train_a_little)


@pytest.fixture
def lstm(lstm_model: nn.Module, symbols: torch.Tensor) -> Workload:
    """The language model with two batches of symbols."""
    return as_workload(lstm_model, symbols, symbols.flip(0))


@pytest.fixture
def make() -> Callable[..., Workload]:
    """`make(model, *batches, **settings)`: a workload around any model."""
    return as_workload


@pytest.fixture
def own_observers() -> Iterator[None]:
    """Observers registered in the test are gone after it."""
    before = dict(OBSERVERS._entries)
    yield
    OBSERVERS._entries = before


@pytest.fixture
def quick_timing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two short rounds of timing on one thread: the tests look at what is measured, not at how well."""
    monkeypatch.setattr(speed, "ROUNDS", (2, 2))
    monkeypatch.setattr(speed, "ROUND_SECONDS", 1e-4)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
