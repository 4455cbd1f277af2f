"""Cedar: the engine, the bundle, and the translation of facts into its questions."""
