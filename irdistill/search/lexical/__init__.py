"""BM25 and the other first stages that need no model."""
