"""Search over sparse vectors: an exact inverted index, and Seismic."""
