"""Tool policies: which of an agent's tools the model is offered at a step, and in which order."""
