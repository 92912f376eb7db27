"""The join: which decision an event belongs to, and what became of each decision."""
