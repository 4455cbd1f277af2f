"""What a user's own flow imports to take part."""
