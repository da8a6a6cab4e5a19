"""Minibatch CKA of all layers of all particles of all models, in one pass over the data.

Needs torch, numpy and pandas; never a widget. Read it from `compare` downwards:
`compare -> capture, batches, particles -> stack -> gram, features`, and
`compare -> hsic -> sums <- result`. `sums`, `result` and `storage` do not import torch.
"""
