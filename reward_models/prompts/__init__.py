"""Which prompt for which brief or question, learned from logs, without asking a language model."""
