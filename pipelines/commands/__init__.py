"""The commands of ``rewardloop``, one module per group; each has ``register(app)``, called in ``pipelines/cli.py``."""
