"""Files -> documents: read, normalise, identify, filter, deduplicate, split."""
