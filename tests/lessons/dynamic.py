"""Wrong answers to the exercises of lesson 02."""

WRONG = {
    "bytes of an int8 Linear": [
        ("size = 4 * (400 * 1000 + 400)", "the bytes of the float layer"),
        ("size = 400 * 1000 + 400 * 4", "add the scale and the zero point"),
    ],
    "dynamic linear": [
        (
            "def dynamic_linear(x, weight, bias):\n    return x @ weight.T + bias",
            "nothing was rounded",
        ),
        (
            "def dynamic_linear(x, weight, bias):\n"
            "    x_scale, zero_point, w_scale = 8 / 255, 128, weight.abs().max() / 127\n"
            "    x_codes = (torch.round(x / x_scale) + zero_point).clamp(0, 255)\n"
            "    return x_scale * w_scale * ((x_codes - zero_point) @ torch.round(weight / w_scale).T) + bias",
            "anew in each call",
        ),
    ],
    "sizes that pay": [
        ("pays = [100]", "There is no width 100"),
        ("pays = one_row.width[one_row.low <= 1].tolist()", "lower quartile"),
    ],
}
