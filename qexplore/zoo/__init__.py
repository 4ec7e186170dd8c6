"""The demo workloads; importing this package registers them."""

from qexplore.zoo import denoise, digits, digits_mobile, pydoc_lstm

DEMOS = {module.NAME: module for module in (digits, digits_mobile, pydoc_lstm, denoise)}
