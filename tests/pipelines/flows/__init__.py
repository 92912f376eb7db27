"""Tests of the flows: their steps as plain functions; under real Prefect in tests/stack/test_prefect.py."""
