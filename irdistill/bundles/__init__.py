"""Bundles: a model with the index of a corpus in one folder, and files for search engines.

`irdistill.bundles.bundle_searcher` opens a bundle without torch if it holds the query tower as an
ONNX network.
"""
