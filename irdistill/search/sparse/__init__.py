"""Sparse vectors: exact search and Seismic."""
