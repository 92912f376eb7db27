"""Files in: tables and vendors' payloads, read as streams of rows, and audiences of sends."""
