"""Backtests: what would have been proposed and decided in the past."""
