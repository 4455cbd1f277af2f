"""The injector, its receipts, the kill switch and the mode."""
