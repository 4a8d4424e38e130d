"""One metric family a file; statistics."""
