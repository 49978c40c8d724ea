"""What a user sees of a run: logs, curves, sample sheets, the model card.

Nothing here changes what is trained.
"""
