"""A queue in front of some slots: orders to start its runs in, and a replay of a history under each."""
