"""Models on disk and on the device: names, weights, adapters, precision, batches, truncation."""
