"""What others are told: the audit-log projector, the notifier, and descriptions of steps."""
