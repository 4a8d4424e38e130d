"""Documents -> token shards -> one ordered stream, a pure function of (seed, position)."""
