"""Documents of the user as a collection: files, tables, datasets and other collections.

Each source yields documents with ids that do not depend on the machine. `collect_sources` writes
them as a folder in BEIR layout with a manifest.
"""
