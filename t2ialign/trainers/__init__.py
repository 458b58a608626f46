"""One short file an algorithm, on the engine. A trainer imports no reward model."""
