"""Dense vectors: the store, exact search, and FAISS indexes."""
