"""Wrong answers to the exercises of lesson 06."""

WRONG = {
    "write evaluate": [
        (
            "def error_rate(model):\n"
            "    model.eval()\n"
            "    with torch.no_grad():\n"
            "        return (model(test_x).argmax(1) != test_y).float().mean()",
            ".item() makes a Python number",
        ),
        (
            "def error_rate(model):\n"
            "    model.eval()\n"
            "    with torch.no_grad():\n"
            "        return (model(test_x).argmax(1) != test_y).double().mean().item()",
            "left in eval mode",
        ),
    ],
    "calibration batches": [
        ("my_batches = iter(train_x.split(16))", "only once"),
        ("my_batches = list(test_x[:128].split(16))", "Take training images"),
    ],
    "keep one layer float": [
        (
            "recipe = qx.Recipe(activation=qx.TensorSpec('minmax'), rules=[qx.LayerRule('fc', keep_float=True)])",
            "matches no layer",
        ),
        (
            "recipe = qx.Recipe(\n"
            "    activation=qx.TensorSpec('minmax'),\n"
            "    weight=qx.TensorSpec(symmetric=True),\n"
            "    rules=[qx.LayerRule('head', keep_float=True)],\n"
            ")",
            "per_channel=True",
        ),
    ],
}
