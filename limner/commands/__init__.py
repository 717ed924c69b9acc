"""Commands that do not fit into cli.py."""
