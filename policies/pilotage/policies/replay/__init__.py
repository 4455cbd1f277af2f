"""Past decisions, evaluated again under other policies or other facts."""
