"""The estimators in words."""

from typing import NamedTuple

from influence_jax.estimators import Estimator


class Method(NamedTuple):
    """An estimator's name and, as the end of a sentence, what it does."""

    name: str
    what: str


METHODS = {
    Estimator.DIFFERENCE: Method(
        'difference of means',
        'the mean loss of members without the example minus that of members with it',
    ),
    Estimator.ADJUSTED: Method(
        'adjusted difference of means',
        'the mean loss of members without the example minus that of members with it, after what '
        'the target itself and its strongest influencers explain has been taken out of the losses',
    ),
    Estimator.RIDGE: Method(
        'ridge datamodel',
        'minus the coefficient of the example in a linear model of the loss on the target, fitted '
        'to all examples at once with a penalty on squares, its own shrinkage divided out',
    ),
    Estimator.LASSO: Method(
        'LASSO datamodel',
        'minus the coefficient of the example in a sparse linear model of the loss on the target, '
        'fitted to all examples at once with a penalty on absolute values, whose shrinkage is '
        'taken back',
    ),
}
