"""Tests of the flows: their steps as plain functions."""
