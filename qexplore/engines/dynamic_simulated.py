"""Float stand-ins for torch.ao's dynamic kernels: the same quantization at run time, in float arithmetic."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from qexplore.numerics.affine import fake_quantize, qparams


def quantize_at_run_time(x: torch.Tensor, quant_max: int) -> torch.Tensor:
    """`x` fake-quantized to codes 0..quant_max with the range it has now, as the dynamic kernels do."""
    lo, hi = torch.aminmax(x)
    scale, zero_point = qparams(lo, hi, 0, quant_max, symmetric=False)
    return fake_quantize(x, scale, zero_point, 0, quant_max)


def stand_in(layer: nn.Module, quant_max: int) -> nn.Module:
    """The simulation of a Linear, LSTM or GRU whose weights are quantized already.

    Args:
        quant_max: largest code of the activations.
    """
    if isinstance(layer, nn.Linear):
        return DynamicLinear(layer, quant_max)
    assert isinstance(layer, nn.LSTM | nn.GRU)
    return DynamicRNN(layer, quant_max)


class DynamicLinear(nn.Module):
    """A Linear whose input is quantized at run time; its weight is quantized already."""

    def __init__(self, linear: nn.Linear, quant_max: int) -> None:
        super().__init__()
        self.linear, self.quant_max = linear, quant_max

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(quantize_at_run_time(x, self.quant_max))


class DynamicRNN(nn.Module):
    """An LSTM or GRU (weights quantized already) whose inputs and hidden states are quantized at run time.

    As in PyTorch's quantized RNN, the input of a layer is quantized once for the whole sequence, the hidden
    state at every step.
    """

    def __init__(self, rnn: nn.RNNBase, quant_max: int) -> None:
        super().__init__()
        self.rnn, self.quant_max = rnn, quant_max
        self.is_lstm = isinstance(rnn, nn.LSTM)

    def forward(self, x: torch.Tensor, state: object = None) -> tuple[torch.Tensor, object]:
        if isinstance(x, PackedSequence):
            raise NotImplementedError("The simulation of dynamic mode takes padded sequences, not packed ones.")
        rnn = self.rnn
        unbatched = x.dim() == 2
        if unbatched:
            x = x.unsqueeze(1)
        elif rnn.batch_first:
            x = x.transpose(0, 1)
        states = self._initial(x, state, unbatched)
        directions = 2 if rnn.bidirectional else 1
        finals = []
        for layer in range(rnn.num_layers):
            outputs = []
            for direction in range(directions):
                suffix = f"_l{layer}" + ("_reverse" if direction else "")
                steps = x.flip(0) if direction else x
                start = tuple(s[layer * directions + direction] for s in states)
                output, final = self._run(steps, start, suffix)
                outputs.append(output.flip(0) if direction else output)
                finals.append(final)
            x = torch.cat(outputs, dim=-1)
        ends = tuple(torch.stack([final[i] for final in finals]) for i in range(len(finals[0])))
        if unbatched:
            x, ends = x.squeeze(1), tuple(end.squeeze(1) for end in ends)
        elif rnn.batch_first:
            x = x.transpose(0, 1)
        return x, ends if self.is_lstm else ends[0]

    def _initial(self, x: torch.Tensor, state: object, unbatched: bool) -> tuple[torch.Tensor, ...]:
        if state is None:
            count = self.rnn.num_layers * (2 if self.rnn.bidirectional else 1)
            zeros = x.new_zeros(count, x.shape[1], self.rnn.hidden_size)
            return (zeros, zeros) if self.is_lstm else (zeros,)
        given: tuple[torch.Tensor, ...] = tuple(state) if self.is_lstm else (state,)  # type: ignore[arg-type, assignment]
        return tuple(s.unsqueeze(1) for s in given) if unbatched else given

    def _run(
        self, x: torch.Tensor, start: tuple[torch.Tensor, ...], suffix: str
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """One direction of one layer over the sequence `x` [T, B, I]."""
        rnn = self.rnn
        bias_ih = getattr(rnn, f"bias_ih{suffix}") if rnn.bias else None
        bias_hh = getattr(rnn, f"bias_hh{suffix}") if rnn.bias else None
        weight_hh = getattr(rnn, f"weight_hh{suffix}")
        from_input = F.linear(quantize_at_run_time(x, self.quant_max), getattr(rnn, f"weight_ih{suffix}"), bias_ih)
        step = self._lstm_step if self.is_lstm else self._gru_step
        state, outputs = start, []
        for gates in from_input.unbind(0):
            from_hidden = F.linear(quantize_at_run_time(state[0], self.quant_max), weight_hh, bias_hh)
            state = step(gates, from_hidden, state)
            outputs.append(state[0])
        return torch.stack(outputs), state

    @staticmethod
    def _lstm_step(a: torch.Tensor, b: torch.Tensor, state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        i, f, g, o = (a + b).chunk(4, dim=-1)
        cell = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell), cell

    @staticmethod
    def _gru_step(a: torch.Tensor, b: torch.Tensor, state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        (r1, z1, n1), (r2, z2, n2) = a.chunk(3, dim=-1), b.chunk(3, dim=-1)
        reset, update = torch.sigmoid(r1 + r2), torch.sigmoid(z1 + z2)
        return ((1 - update) * torch.tanh(n1 + reset * n2) + update * state[0],)
