"""Figures: pure functions from results to matplotlib figures. Everything is in nats."""
