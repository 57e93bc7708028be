"""An ensemble of one's own network, BatchNorm and all: influence distributions of 196 images."""

import numpy as np
from flax import nnx

import influence_jax as ij


class Network(nnx.Module):
    """A small convolutional network; any Flax NNX module would do."""

    def __init__(self, classes: int, rngs: nnx.Rngs) -> None:
        self.convolution = nnx.Conv(3, 16, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.out = nnx.Linear(16, classes, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.convolution(x)))
        return self.out(self.dropout(x.max((1, 2))))


clipart = ij.Dataset.clipart().take(np.arange(0, 1567, 8))  # or your own images and labels:
data = ij.Dataset({'image': clipart.arrays['image'], 'label': clipart.arrays['label']})
task = ij.tasks.Classification(lambda rngs: Network(classes=9, rngs=rngs))
run = ij.train_ensemble(
    task,
    data,
    members=64,
    output_dir='runs/own_network',
    recipe=ij.Recipe(epochs=20, batch_size=24, learning_rate=1e-2),
    progress=ij.TerminalProgress(),
)

influence = run.influence()  # .values and .standard_error, [N T]; positive: the example helps
column = run.column('17')  # one target's whole distribution
print(column.strongest(3))  # (example, influence in nats, standard error)
print(ij.report.write(run))  # the page
