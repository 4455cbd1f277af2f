"""The one engine behind every skin: it answers, shows cards and keeps the append-only log that skins read."""
