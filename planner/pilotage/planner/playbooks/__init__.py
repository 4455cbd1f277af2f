"""Playbooks: from a finding to the actions that are proposed for it."""
