"""Ways of fine-tuning, measured on the built-in model: settings, pictures, numbers, and a table for the guides."""
