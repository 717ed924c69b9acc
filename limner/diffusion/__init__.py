"""The mathematics of diffusion: no networks, no files."""
