"""What the controller answers to people and their programs."""
