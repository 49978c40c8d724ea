"""One optimiser step after another: the loop, the optimiser, checkpoints, signals.

`loop.train_steps` is the loop; `learner.Learner` holds the weights, the optimiser and their average.
"""
