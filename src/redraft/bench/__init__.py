"""Experiments at equal compute."""
