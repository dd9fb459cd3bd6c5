"""A network with its process and its codec; one file for each family."""
