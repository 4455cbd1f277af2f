"""Who is calling: users, agents, tokens and passwords."""
