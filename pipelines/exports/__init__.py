"""What leaves the house: examples for fine-tuning, tables for a warehouse."""
