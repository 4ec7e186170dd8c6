"""Wrong answers to the exercises of lesson 00."""

WRONG = {
    "where the error begins": [
        ('layer = "blocks.2.depthwise"', "a layer before it is below 20 dB already"),
        ('layer = "conv"', "go on down the list"),
    ],
    "how few bits": [
        ("bits = 4", "it takes more"),
        ("bits = 8", "fewer bits still give 20 dB"),
    ],
}
