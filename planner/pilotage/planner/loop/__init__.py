"""The planner at work: detect, plan and file proposals."""
