"""Recipes for the reference networks."""
