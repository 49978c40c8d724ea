"""What a user sees of a run: logs, loss curves, sample sheets, the model card.

Nothing here changes the training.
"""
