"""Recipe file -> graph -> what is stale and why -> run, continue, record."""
