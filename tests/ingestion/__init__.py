"""Tests of ``ingestion``."""
