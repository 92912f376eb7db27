"""Facts to a choice with a probability: rewards, models, policies and the proof that they help."""
