"""Wrong answers to the exercises of lesson 08."""

WRONG = {
    "read the ledger": [
        ('brings_most = coarse_ledger.layers["local_sqnr_db"].idxmin()', "has the lowest SQNR of its own"),
        ('brings_most = "blocks.0.depthwise"', "another layer brings more"),
    ],
    "uneven channels": [
        (
            "def ratio(weight):\n"
            "    reach = weight.abs().flatten(1).amax(1)\n"
            "    return (reach.max() / reach.mean()).item()\n\n\n"
            "uneven = []",
            "take the median",
        ),
        (
            "def ratio(weight):\n"
            "    reach = weight.abs().flatten(1).amax(1)\n"
            "    return (reach.max() / reach.median()).item()\n\n\n"
            'uneven = ["blocks.0.depthwise"]',
            "layers are missing from the list",
        ),
    ],
    "mend with two layers": [
        (
            'worst = coarse_ledger.layers["local_sqnr_db"].nsmallest(2).index\n'
            "rules = [qx.LayerRule(name, weight=eight_bits) for name in worst]\n"
            "mended = replace(coarse, rules=(*coarse.rules, *rules))",
            "Choose by what layers bring",
        ),
        (
            'mended = replace(coarse, rules=(*coarse.rules, qx.LayerRule("*", weight=eight_bits)))',
            "are allowed",
        ),
    ],
}
