"""What the words mean: the terms of the notebooks and the explorer, each in a sentence or two."""

GLOSSARY = {
    "accuracy": "the share of samples whose largest output is the right class",
    "activation": "a tensor that a layer computes while the model runs, as opposed to a weight, which is stored",
    "AdaRound": "a preparation step that decides for every weight whether to round it up or down, so that the layer's "
    "output changes least (Nagel et al. 2020, arXiv 2004.10568)",
    "affine": "a mapping whose codes span from the smallest to the largest value, with a zero point wherever 0.0 falls",
    "agreement": "the share of samples for which float and quantized model have the same largest output",
    "BatchNorm folding": "multiplying a BatchNorm's factor into the weight of the convolution before it, so that one "
    "operation is left (Jacob et al. 2018, arXiv 1712.05877, section 3.2)",
    "bias correction": "a preparation step that takes the mean error of a layer's output off its bias "
    "(Nagel et al. 2019, arXiv 1906.04721)",
    "bits per character": "how much a language model is surprised: the mean of −log2 of the probability it gave to "
    "the character that came; lower is better",
    "calibration": "running some data through the float model, so that the range of every activation is known",
    "clipping": "replacing a value beyond the chosen range by the range's end; the loss is the clipping error",
    "code": "the integer that is stored in place of a float value",
    "cross-layer equalization": "a preparation step that makes a channel smaller in one layer and larger in the next, "
    "so that channels have like ranges and the function stays the same (Nagel et al. 2019, arXiv 1906.04721)",
    "depthwise convolution": "a convolution that filters each channel by itself, as in MobileNet",
    "dequantize": "to turn codes back into float values: (code − zero point) · scale",
    "dynamic quantization": "int8 weights; the range of an activation is found while the model runs, "
    "and between layers it is float",
    "embedding": "a table with a row of numbers for each symbol; reading a symbol is looking up its row",
    "engine": "the library of int8 kernels that PyTorch computes with: x86, FBGEMM, oneDNN or QNNPACK",
    "epoch": "one pass of training over all of the training data",
    "error ledger": "a table of every layer's error: its own in parts, what it brings to the output, and what has "
    "added up at it",
    "fake-quantize": "to quantize and dequantize at once: float values that lie on the grid of the codes",
    "fusion": "computing Conv, BatchNorm and ReLU as one int8 operation, with one rounding instead of three",
    "held-out data": "data used neither to train nor to calibrate, so that what is measured on it is what new data "
    "would give",
    "int8": "an 8-bit integer, one of 256 codes",
    "kernel": "the compiled routine that computes one operation on the processor",
    "LSTM": "long short-term memory: a layer that goes through a sequence step by step and carries a state along "
    "(Hochreiter & Schmidhuber 1997)",
    "memory traffic": "the bytes that move between memory and processor; an int8 value is one byte, a float four",
    "mixed precision": "other bits, or float, for some of the layers",
    "mode": "when the ranges are found and whether the model is trained: dynamic, static or QAT",
    "MSE": "mean squared error, in the square of the tensor's unit",
    "observer": "what chooses a tensor's range from the values it has seen",
    "oscillation": "a weight in QAT that goes back and forth over the border between two levels, because its best "
    "value lies between them (Nagel et al. 2022, arXiv 2203.11086)",
    "outlier": "a value far beyond all others, which takes the range and leaves few codes to the rest",
    "overflow guard": "fewer codes for activations or weights on processors whose int8 sums saturate",
    "overhead": "time that a call takes whatever its size: bookkeeping, finding ranges, converting",
    "per channel": "one scale for each output channel of a weight",
    "per tensor": "one scale for a whole tensor",
    "PSNR": "peak signal-to-noise ratio: 10·log10 of the square of white over the mean squared error, in dB",
    "QAT": "quantization-aware training: fine-tuning a model while it feels the rounding, through fake-quantize",
    "quantize": "to turn float values into codes: round, shift by the zero point, clip to the codes there are",
    "quartile": "a quarter of the measurements lies below the lower quartile, a quarter above the upper one",
    "range": "the float values from the smallest to the largest that the codes reach",
    "recipe": "all settings of a quantization together; the same recipe, data and machine give the same model",
    "RMSE / scale": "the root mean square error in steps; plain rounding gives 1/√12 = 0.289",
    "rounding error": "what is lost between two levels, at most half a step",
    "scale": "the step between two neighbouring levels, in the tensor's own unit",
    "sensitivity": "how far the model's output moves when one layer is quantized",
    "simulated": "computed in float on fake-quantized values: the accuracy of int8 without its kernels, "
    "and all there is below 8 bits",
    "SQNR": "signal-to-quantization-noise ratio, 10·log10 of mean square signal over mean square error, in dB; "
    "20 dB more is an error ten times smaller",
    "state_dict": "the tensors of a PyTorch model by name, without its code: what to save and load",
    "static quantization": "int8 weights and activations; ranges come from calibration and stay fixed",
    "straight-through estimator": "taking the gradient of rounding, which is zero almost everywhere, as one inside the "
    "range and zero beyond it (Bengio et al. 2013, arXiv 1308.3432)",
    "symmetric": "a mapping whose range reaches as far below zero as above it; 0.0 has the middle code",
    "weight": "a tensor of numbers that training found and the model's file stores",
    "workload": "a trained model with data to calibrate with and a measure of how good it is",
    "zero point": "the code that stands for 0.0",
}
