"""One script a peer of embed_peers.py, run by the interpreter of a virtual environment that has the peer."""
