"""The command line. Light at start: what is heavy is imported by the command that needs it."""
