"""The engine behind every frontend: it answers, shows cards and keeps the append-only log."""
