"""Published metrics, each beside its value for held-out rows."""
