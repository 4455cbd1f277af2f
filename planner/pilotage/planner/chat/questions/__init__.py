"""Questions without a model: times, names and intents in a sentence become one typed meaning."""
