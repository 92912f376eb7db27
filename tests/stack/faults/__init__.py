"""The fault suite: everything sent is in a ledger of its own, everything that can break is broken, and the database is
compared with the ledger. Start with ``world.py`` (what is sent), ``ledger.py``, ``checker.py``, ``scenarios.py``."""
