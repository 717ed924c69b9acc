"""Model families: each one dataclass around the networks of diffusers and transformers."""
