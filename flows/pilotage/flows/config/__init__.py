"""Settings, paths and credentials of an installation."""
