"""Tests of ``reward_models``."""
