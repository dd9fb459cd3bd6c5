"""Forward noising and reverse steps, without a network."""
