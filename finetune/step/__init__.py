"""What one optimiser step computes: its batch, the objective, the loss.

Pure functions of tensors; imports `orchard` alone.
"""
