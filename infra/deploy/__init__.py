"""How Rewardloop is run: containers, dashboards, and a Kafka for machines without Docker."""
