"""Worlds that are kept apart: what is mended for the shipped ones is scored with these, which nobody tunes to."""
