"""A model of the picture world, measured by the judge, and told in tables and pictures."""
