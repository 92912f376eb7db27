"""Payloads to facts, facts to outcomes: what happened, never what it is worth."""
