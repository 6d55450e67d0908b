"""What the commands do with a run: train and evaluate its pair, load it again, bound log p(x), split the gap."""
