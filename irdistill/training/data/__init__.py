"""Training lists: sampling, mixing, mining and collation."""
