"""Tests on real servers: a Kafka broker, PostgreSQL, the worker as a process of its own."""
