"""Language models: the protocol, the OpenAI-compatible client, budget, usage and tracing."""
