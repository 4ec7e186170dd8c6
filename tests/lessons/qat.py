"""Wrong answers to the exercises of lesson 04."""

WRONG = {
    "straight-through": [
        (
            "def straight_through_by_hand(x, scale, quant_min, quant_max):\n"
            "    return torch.round(x / scale).clamp(quant_min, quant_max) * scale",
            "the gradient is 0 everywhere",
        ),
        (
            "def straight_through_by_hand(x, scale, quant_min, quant_max):\n"
            "    quantized = torch.round(x / scale).clamp(quant_min, quant_max) * scale\n"
            "    return x + (quantized - x).detach()",
            "clamp x to quant_min",
        ),
    ],
    "steps until the jump": [
        ("steps = 20", "without rounding"),
        ("steps = 0.125 / 0.01", "steps are whole numbers"),
    ],
    "fold a BatchNorm": [
        (
            "def folded(weight, bias, norm):\n"
            "    factor = norm.weight / (norm.running_var + norm.eps)\n"
            "    return weight * factor.reshape(-1, 1, 1, 1), (bias - norm.running_mean) * factor + norm.bias",
            "square root",
        ),
        (
            "def folded(weight, bias, norm):\n"
            "    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)\n"
            "    return weight * factor.reshape(-1, 1, 1, 1), norm.bias - norm.running_mean * factor",
            "own bias is missing",
        ),
    ],
}
