"""What one optimiser step computes: its batch, the objective, the loss."""
