"""Lucene through Pyserini: the Java runtime, the index, and search."""
