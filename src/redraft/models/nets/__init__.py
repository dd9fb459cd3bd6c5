"""The networks that are ours."""
