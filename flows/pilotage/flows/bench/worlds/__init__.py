"""The shipped worlds: one file a class of fault, found by their folder as those of anybody else."""
