"""Where the parameters of a large GPT-Neo lie on a mesh with axes 'data' and 'model'.

Matrices are cut along both: over 'model' along heads and the width inside the MLP, so that a
layer needs two sums over 'model'; over 'data' along the other axis, to be gathered layer by
layer. Embeddings are cut along D: GPT-2's vocabulary of 50257 does not divide. What is small is
everywhere.
"""

from jax.sharding import PartitionSpec as P

RULES = (
    (r'adapters?/|/(a|b)$', P()),
    (r'^(token|position)_embedding$', P(None, ('model', 'data'))),
    (r'attention/(query|key|value)$', P(None, 'data', 'model')),
    (r'attention/output$', P(None, 'model', 'data')),
    (r'mlp/up$', P(None, 'data', 'model')),
    (r'mlp/up_bias$', P(None, 'model')),
    (r'mlp/down$', P(None, 'model', 'data')),
    (r'norm/(scale|bias)$|_bias$', P()),
)
"""For `training.sharding`: (pattern of a path, where); the first that is found holds."""
