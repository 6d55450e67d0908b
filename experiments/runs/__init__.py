"""The work of the commands: train and evaluate a pair, load a run again, bound log p(x), split the gap."""
