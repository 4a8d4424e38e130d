"""One verb a file: its config, and `run`: artifacts in -> one artifact out."""
