"""Files that irdistill writes: atomic, with checksums, owned, cached, and bounded when read."""
