"""From files to examples: the layouts of the field, pictures, captions, order, cache."""
