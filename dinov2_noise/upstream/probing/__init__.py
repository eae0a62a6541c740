"""Probing a finished backbone in one process: features, upstream's linear heads and k-NN, over many data sets at once.

`model` loads the backbone, `heads` and `neighbours` classify its features, `probe` puts them together.
"""
