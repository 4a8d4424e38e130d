"""What every room stands on: artifacts, configs, errors, progress, random streams. Knows nothing of models or text."""
