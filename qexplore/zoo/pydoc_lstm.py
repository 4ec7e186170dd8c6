"""Character language model on the help texts that every Python ships: the demo for dynamic quantization."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import nn
from torch.nn import functional

from qexplore.errors import QexploreError
from qexplore.workload import WORKLOADS, Progress, Workload
from qexplore.zoo.files import load_weights
from qexplore.zoo.loops import Pairs, evaluating, fit

NAME = "pydoc_lstm"
# The vocabulary is written down here, since the help texts differ between Python versions.
VOCABULARY = "\n" + "".join(map(chr, range(32, 127)))
PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "..."})
# Topics that Python 3.10 to 3.13 all have; what they share with other topics is not trained on.
HELD_OUT = ("import", "comparisons", "typesmapping")
ROWS, LENGTH = 32, 512
STEPS_PER_EPOCH = 40


class CharLSTM(nn.Module):
    """Tokens int64 [B, T] to logits [B, T, V] of the character that follows each."""

    def __init__(self, vocabulary: int = len(VOCABULARY), embedding: int = 48, hidden: int = 512) -> None:
        super().__init__()
        # The embedding stays float under dynamic quantization, hence small.
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(hidden, vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.embedding(tokens))
        return self.head(self.dropout(states))


def encode(text: str) -> torch.Tensor:
    """Token ids [characters] of the text; typographic signs become plain ones, others outside ASCII are dropped."""
    ids = {character: index for index, character in enumerate(VOCABULARY)}
    return torch.tensor([ids[c] for c in text.translate(PLAIN) if c in ids], dtype=torch.int64)


@cache
def corpus() -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of the (training, held-out) text of `pydoc_data.topics`.

    Topics repeat one another, so each paragraph is trained on once, and none that the held-out topics contain.
    """
    from pydoc_data.topics import topics

    held_out = "\n\n".join(topics[name] for name in HELD_OUT if name in topics)
    seen = {paragraph.strip() for paragraph in held_out.split("\n\n")}
    training = []
    for name in sorted(set(topics) - set(HELD_OUT)):
        for paragraph in topics[name].split("\n\n"):
            if paragraph.strip() not in seen:
                seen.add(paragraph.strip())
                training.append(paragraph)
    return encode("\n\n".join(training)), encode(held_out)


def bits_per_character(model: nn.Module) -> float:
    """Mean -log2 p of the next character, over up to 32 stretches of 512 held-out characters."""
    text = corpus()[1]
    rows = min(ROWS, (len(text) - 1) // LENGTH)
    inputs, targets = text[: rows * LENGTH].view(rows, LENGTH), text[1 : rows * LENGTH + 1].view(rows, LENGTH)
    with evaluating(model):
        return cross_entropy(model(inputs), targets).item() / math.log(2)


def write(model: nn.Module, prompt: str, characters: int = 200, seed: int = 0, temperature: float = 0.6) -> str:
    """Text that a float or int8 `CharLSTM` writes after the prompt, a character at a time.

    Args:
        seed: of one random number for each character, so that two models with like probabilities write alike.
        temperature: what the logits are divided by, above 0; lower is less daring.

    Raises:
        QexploreError: a prompt without any known character, no whole number of characters, or a temperature of 0.
    """
    if not len(encode(prompt)):
        raise QexploreError(f"The prompt {prompt!r} has no character that the model knows; give some ASCII text.")
    if not isinstance(characters, int) or characters < 0:
        raise QexploreError(f"characters is {characters!r}; give a whole number from 0 up.")
    if not temperature > 0:
        raise QexploreError(f"temperature is {temperature!r}; give a number above 0.")
    luck = torch.rand(characters, generator=torch.Generator().manual_seed(seed))
    embedding, lstm, head = (model.get_submodule(name) for name in ("embedding", "lstm", "head"))
    tokens, state, written = encode(prompt)[None], None, ""
    with evaluating(model):
        for each in luck:
            states, state = lstm(embedding(tokens), state)
            chances = torch.softmax(head(states[:, -1])[0] / temperature, 0).cumsum(0)
            index = min(int(torch.searchsorted(chances, each)), len(VOCABULARY) - 1)
            written += VOCABULARY[index]
            tokens = torch.tensor([[index]])
    return written


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean over all characters, in nats."""
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def crops(generator: torch.Generator, batch: int = 32, length: int = 256, steps: int = STEPS_PER_EPOCH) -> Pairs:
    """Random stretches of the training text: (tokens, following tokens), both [batch, length]."""
    text = corpus()[0]
    for _ in range(steps):
        starts = torch.randint(len(text) - length - 1, (batch, 1), generator=generator)
        index = starts + torch.arange(length)
        yield text[index], text[index + 1]


def pretrain(progress: Progress, epochs: int = 15) -> nn.Module:
    """The model trained from scratch; the caller seeds torch."""
    model = CharLSTM()
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * STEPS_PER_EPOCH)
    fit(model, lambda: crops(generator), cross_entropy, optimizer, epochs, progress, schedule, clip=1.0)
    return model.eval()


@WORKLOADS.register(NAME)
def pydoc_lstm() -> Workload:
    """LSTM that writes Python's help texts character by character: dynamic int8 (hidden size 512)."""
    calibration = [tokens for tokens, _ in crops(torch.Generator().manual_seed(1), batch=1, length=128, steps=8)]
    # torch.ao has no quantization-aware training for nn.LSTM, hence no `train`.
    return Workload(
        NAME,
        load_weights(CharLSTM(), NAME),
        calibration,
        bits_per_character,
        metric="bits per character",
        higher_is_better=False,
    )
