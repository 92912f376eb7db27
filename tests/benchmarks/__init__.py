"""Benchmarks: ``make bench NAME=import`` runs ``bench_import.py``. Each ends with one line of JSON."""
