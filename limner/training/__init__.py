"""From a batch to an update: objectives, gradients, optimizers, the loop, checkpoints."""
