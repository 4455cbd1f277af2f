"""The tamper-evident audit log and its signed checkpoints."""
