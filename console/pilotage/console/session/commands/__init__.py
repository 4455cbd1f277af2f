"""Slash commands, as one table."""
