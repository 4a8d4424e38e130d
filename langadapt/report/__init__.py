"""Scores and manifests -> one HTML page, markdown and summary.json."""
