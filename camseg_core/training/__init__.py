"""Training: each file a config dataclass and a `train()` over the shared loop."""
