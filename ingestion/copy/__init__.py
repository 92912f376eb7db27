"""Copy: as it is stored, what a loop demands of it, and the verdicts on it."""
