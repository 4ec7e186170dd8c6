"""Wrong answers to the exercises of lesson 01."""

WRONG = {
    "scale and zero point": [
        ("scale, zero_point = 2 / 256, 64", "one less"),
        ("scale, zero_point = 2 / 255, 0", "The code 0 stands for the smallest value"),
    ],
    "quantize and back": [
        (
            "def there_and_back(x, scale, zero_point):\n    return (torch.round(x / scale) + zero_point).clamp(0, 255)",
            "These are the codes",
        ),
        (
            "def there_and_back(x, scale, zero_point):\n"
            "    return (torch.round(x / scale) + zero_point - zero_point) * scale",
            "clamp the codes",
        ),
    ],
    "best clip": [
        ("clip = laplace.abs().max()", "try a narrower range"),
        ("clip = 0.5", "try a wider range"),
    ],
}
