"""Tests of ``infra``."""
