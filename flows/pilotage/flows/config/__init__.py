"""Settings, paths of the state directory, and the names of credentials."""
