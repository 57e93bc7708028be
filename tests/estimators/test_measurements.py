"""Other measurements: known values, and the sign of influence."""

import numpy as np
import pytest

from influence_jax.estimators import difference_in_means, measurements


def test_known_values():
    losses = np.array([[0.0, np.log(2.0), 30.0]])
    np.testing.assert_allclose(measurements.error_probability(losses), [[0, 0.5, 1]], atol=1e-12)
    np.testing.assert_allclose(measurements.clipped_loss(losses, largest=2), [[0, np.log(2), 2]])
    np.testing.assert_allclose(
        measurements.log_loss(losses), np.log([[1e-6, np.log(2), 30]]), rtol=1e-12
    )


def test_missing_members_stay_missing():
    missing = np.array([[np.nan, np.nan]])
    for measured in (measurements.error_probability, measurements.log_loss, measurements.negated):
        assert np.isnan(measured(missing)).all()
    assert np.isnan(measurements.clipped_loss(missing, largest=1.0)).all()


def test_all_have_the_sign_of_the_loss():
    generator = np.random.default_rng(0)
    masks = generator.random((300, 6)) < 0.5
    losses = generator.gamma(2.0, size=(300, 6)) * np.where(masks, 0.1, 1.0)
    for measured in (
        losses,
        measurements.error_probability(losses),
        measurements.log_loss(losses),
        measurements.clipped_loss(losses, largest=1.0),
        measurements.negated(np.exp(-losses)),
    ):
        assert (np.diag(difference_in_means(masks, measured).values) > 0).all()


def test_a_ceiling_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match='largest=0 must be positive'):
        measurements.clipped_loss(np.ones((1, 1)), largest=0)
