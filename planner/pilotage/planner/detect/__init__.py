"""Detection: what is wrong with a run, by the signs it shows, and what its remedy costs."""
