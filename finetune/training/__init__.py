"""One optimiser step after another: batches, loss, optimiser, checkpoints.

`loop.train_steps` is the loop; `learner` is what it changes.
"""
