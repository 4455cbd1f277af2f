"""A scripted OpenAI-compatible server, for the demo and for tests."""
