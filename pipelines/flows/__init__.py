"""Prefect flows: tables of contents. What a step does is a plain function elsewhere, which tests call directly."""
