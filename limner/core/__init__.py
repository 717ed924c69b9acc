"""What every part needs and what needs no other part: errors, config, the run folder, random streams."""
