"""What the notebooks count and draw: questions to the store or to a history file, and pictures of the answers."""
