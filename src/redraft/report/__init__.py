"""Runs for people to look at: statistics, pictures and the demo's page."""
