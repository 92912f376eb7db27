"""Which part of the copy, and which of several sends, earned it."""
