"""The Grafana dashboard as code, and what Grafana reads at its start."""
