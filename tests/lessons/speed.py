"""Wrong answers to the exercises of lesson 05."""

WRONG = {
    "expected file ratio": [
        ("ratio = 4", "count scales, zero points and biases"),
        ("ratio = 4 * (64 * 9 + 64) / (64 * 9 + 20)", "Each of the filters"),
    ],
    "surely faster": [
        (
            "def surely_faster(float_times, int8_times):\n    return sum(float_times) > sum(int8_times)",
            "one odd round makes int8 slow",
        ),
        (
            "def surely_faster(float_times, int8_times):\n"
            "    return np.quantile(float_times, 0.25) > np.quantile(int8_times, 0.75)",
            "compare round by round",
        ),
    ],
    "break-even": [
        ("microseconds = 30", "comes on top"),
        ("microseconds = 30 * 3", "the product alone takes as long"),
    ],
}
