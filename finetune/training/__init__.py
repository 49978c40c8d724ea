"""One optimiser step after another: the loop, the optimiser, checkpoints, signals.

`loop.train_steps` is the loop; `learner` is what it changes. Imports `finetune.models`.
"""
