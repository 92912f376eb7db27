"""What a loop demands of its copy, and the verdicts on it."""
