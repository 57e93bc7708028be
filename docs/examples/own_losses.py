"""Masks and losses of anybody's models: estimates, the strongest pairs and the page."""

import numpy as np

import influence_jax as ij

# Here they are made up: 400 models on halves of 50 examples, where example 3 helps target 7.
rng = np.random.default_rng(0)
masks = rng.random((400, 50)) < 0.5  # [M N]: whether model m was trained on example n
losses = rng.normal(1.0, 0.1, (400, 50))  # [M T]: what was measured of model m on target t
losses -= 0.5 * masks  # each example lowers its own loss
losses[:, 7] -= 0.3 * masks[:, 3]

summary = ij.estimators.summarize(masks, losses, estimator=ij.estimators.adjusted)
for example, target, value in zip(
    summary.pairs.examples, summary.pairs.targets, summary.pairs.values, strict=True
):
    print(f'example {example} lowers the loss on target {target} by {value:.2f} nats')
print(ij.report.write(ij.report.ArrayRun(masks, losses), directory='runs/own_losses'))
