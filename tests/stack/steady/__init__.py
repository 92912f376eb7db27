"""What the API does when things break: damaged models, dependencies that are away, more work than it can do."""
