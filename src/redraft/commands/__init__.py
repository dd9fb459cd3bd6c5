"""What the command line runs, beside the recipes of `redraft.training`."""
