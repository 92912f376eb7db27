"""What the house stands on: settings, errors, time, randomness, the database and the outside clients."""
