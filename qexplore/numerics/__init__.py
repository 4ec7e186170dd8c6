"""Numbers of quantization: the affine mapping and the measures of its error. Knows tensors only."""
