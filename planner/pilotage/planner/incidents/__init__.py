"""What belongs together: the cause keys of a failure, and which incident it opens, joins or reopens."""
