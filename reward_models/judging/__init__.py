"""Judges of copy, held against money: what a rating is worth, and how far it may be trusted."""
