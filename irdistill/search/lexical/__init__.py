"""BM25 over a corpus."""
