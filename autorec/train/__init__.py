"""Training of one candidate, whatever its family, within its deadline."""
