"""Influence distributions of the rows of a table: small networks on scikit-learn's wine."""

import sklearn.datasets

import influence_jax as ij

wine = sklearn.datasets.load_wine()
features = (wine.data - wine.data.mean(axis=0)) / wine.data.std(axis=0)
data = ij.Dataset(
    {'features': features.astype('float32'), 'label': wine.target.astype('int32')},
    class_names=wine.target_names.tolist(),
    columns=wine.feature_names,
    name='wine',
)
task = ij.tasks.Classification(ij.models.MLPConfig(features=13, outputs=3, hidden=(32,)))
recipe = ij.Recipe(epochs=20, batch_size=16, learning_rate=3e-3)
run = ij.train_ensemble(task, data, members=64, output_dir='runs/wine', recipe=recipe)

# The same call with more members adds them to the run.
run = ij.train_ensemble(task, data, members=96, output_dir='runs/wine', recipe=recipe)
summary = run.summary()  # never holds the whole matrix
for row in summary.self_influence.argsort()[::-1][:3]:
    print(f'row {row}: self-influence {summary.self_influence[row]:.2f} nats')
print(ij.report.write(run))
