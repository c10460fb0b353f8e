"""Work on a Ray cluster: starting or joining one, and a pool of workers."""
