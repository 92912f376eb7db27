"""Kafka in: records of topics through the one door to the ledger, and back onto topics what came over HTTP."""
