"""HTTP in: the calls of the collector, their limits, keys and answers."""
