"""Detectors: from facts to findings."""
