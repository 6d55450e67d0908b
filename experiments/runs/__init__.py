"""What the commands do with a run: train a pair and evaluate it, load it again, bound and split and assess its numbers."""
