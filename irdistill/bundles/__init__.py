"""Bundles: a model with the index of a corpus in one folder, and files for search engines.

`irdistill.bundles.bundle_searcher` opens a bundle without torch if it holds a network of the query
tower.
"""
