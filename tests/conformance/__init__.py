"""Pyro programs that nobody of this project wrote, and how far each comes."""
