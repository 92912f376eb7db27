"""What the flows' tasks do, as plain functions that know nothing of Prefect; tests call them directly."""
