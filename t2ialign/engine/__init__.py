"""The one training loop: law of randomness, checkpoints, metrics, processes. It knows no algorithm."""
