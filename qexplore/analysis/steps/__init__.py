"""Preparation steps, one file each: they change a float model so that quantizing it costs less.

`qexplore.analysis` registers them; here nothing is imported, since they use what checks and predictions are made of.
"""
