"""``millesimed demo``: a small French landscape made from rules, and the real service run on it."""
