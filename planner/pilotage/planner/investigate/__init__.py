"""Why something is in trouble, beyond what one run says: hypotheses with evidence for and against, and a plan."""
