"""Lucene through Pyserini: BM25, HNSW and impact indexes."""
