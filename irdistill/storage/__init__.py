"""Files that irdistill writes: atomic, with checksums and locks, owned, and bounded when read."""
