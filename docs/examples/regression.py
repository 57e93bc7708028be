"""On which patients does a prediction of the progression of diabetes depend? Least squares."""

import numpy as np
import sklearn.datasets
from flax import nnx

import influence_jax as ij

diabetes = sklearn.datasets.load_diabetes()
features = (diabetes.data / diabetes.data.std(axis=0)).astype('float32')
progression = (diabetes.target - diabetes.target.mean()) / diabetes.target.std()
patients = np.arange(len(features))
train, test = patients[:300], patients[300:330]  # targets need not be examples


def dataset(rows: np.ndarray) -> ij.Dataset:
    """Some patients, under their numbers."""
    arrays = {'features': features[rows], 'progression': progression[rows].astype('float32')}
    return ij.Dataset(arrays, ids=[f'patient {row}' for row in rows])


task = ij.tasks.Regression(lambda rngs: nnx.Linear(10, 1, rngs=rngs), label='progression')
run = ij.train_ensemble(
    task,
    dataset(train),
    targets=dataset(test),
    members=96,
    output_dir='runs/diabetes',
    design=ij.Design.EXACT_SIZE,
    recipe=ij.Recipe(epochs=30, batch_size=16, learning_rate=1e-2),
)
for patient, influence, error in run.column('patient 305').strongest(3):
    print(f'{patient} lowers the squared error by {influence:.4f} +- {error:.4f}')
