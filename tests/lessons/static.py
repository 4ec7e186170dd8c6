"""Wrong answers to the exercises of lesson 03."""

WRONG = {
    "whole range": [
        ("def whole_range(stats, spec):\n    return 0.0, stats.hi", "Negative values count too"),
        ("def whole_range(stats, spec):\n    return stats.batch_lo, stats.batch_hi", "an entry for each batch"),
    ],
    "percentile": [
        ("percentile = 99.99", "less than the spoilt image has"),
        ("percentile = 0.995", "a share of 1"),
    ],
    "scales of a weight": [
        (
            "per_tensor = weight.abs().max() / 255\nper_channel = weight.abs().amax(dim=(1, 2, 3)) / 255",
            "it is 2a wide",
        ),
        (
            "per_tensor = 2 * weight.abs().max() / 255\nper_channel = 2 * weight.abs().amax(dim=(0, 1)) / 255",
            "output channels, dimension 0",
        ),
    ],
}
