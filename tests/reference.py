"""Slow, obvious truths, written as loops in plain float64 numpy. Nothing here is clever."""

import math

import numpy as np


def difference_in_means(masks, losses):
    """Influence [N T] and its standard error [N T], one entry at a time."""
    examples, targets = masks.shape[1], losses.shape[1]
    values = np.zeros((examples, targets))
    standard_error = np.zeros((examples, targets))
    for i in range(examples):
        for t in range(targets):
            with_i = [float(x) for x in losses[masks[:, i], t]]
            without_i = [float(x) for x in losses[~masks[:, i], t]]
            values[i, t] = mean(without_i) - mean(with_i)
            standard_error[i, t] = math.sqrt(
                variance(with_i) / len(with_i) + variance(without_i) / len(without_i)
            )
    return values, standard_error


def mean(numbers):
    return math.fsum(numbers) / len(numbers)


def variance(numbers):
    """Unbiased."""
    centre = mean(numbers)
    return math.fsum((x - centre) ** 2 for x in numbers) / (len(numbers) - 1)


def self_influence(values, target_examples):
    return np.array([values[i, t] if i >= 0 else math.nan for t, i in enumerate(target_examples)])


def top1_margin(values):
    margins = []
    for column in values.T:
        second, largest = sorted(column)[-2:]
        if largest <= 0:
            margins.append(math.nan)
        elif second <= 0:
            margins.append(math.inf)
        else:
            margins.append(largest / second)
    return np.array(margins)


def top_influencers(values, k):
    """Examples [T K], largest influence first, of equals the earlier first."""
    return np.array(
        [sorted(range(len(column)), key=lambda i: -column[i])[:k] for column in values.T]
    )


def strongest_other(values, target_examples):
    best = []
    for t, own in enumerate(target_examples):
        others = [i for i in range(len(values)) if i != own]
        best.append(max(others, key=lambda i: values[i, t]))
    return np.array(best)


def off_diagonal(values, target_examples):
    """All entries that are not a target's influence on itself, in one list."""
    return np.array(
        [
            values[i, t]
            for t, own in enumerate(target_examples)
            for i in range(len(values))
            if i != own
        ]
    )


def auroc(scores, positives):
    wins = pairs = 0
    for score, positive in zip(scores, positives, strict=True):
        for other, other_positive in zip(scores, positives, strict=True):
            if positive and not other_positive:
                pairs += 1
                wins += 1 if score > other else 0.5 if score == other else 0
    return wins / pairs


def ranks(numbers):
    """1 for the smallest; equal numbers share the mean of their ranks."""
    return np.array(
        [
            sum(other < x for other in numbers) + (sum(other == x for other in numbers) + 1) / 2
            for x in numbers
        ]
    )


def pearson(a, b):
    centred_a = [x - mean(a) for x in a]
    centred_b = [x - mean(b) for x in b]
    covariance = sum(x * y for x, y in zip(centred_a, centred_b, strict=True))
    return covariance / math.sqrt(sum(x * x for x in centred_a) * sum(y * y for y in centred_b))


def spearman(a, b):
    return pearson(ranks(a), ranks(b))


def all_subsets(examples):
    """Masks [2^N N]: every subset once."""
    return np.array(
        [[bool(number >> i & 1) for i in range(examples)] for number in range(2**examples)]
    )


def ridge_losses(masks, features, labels, *, penalty):
    """Squared errors [M T] on all points of ridge regressions, each fitted to its own subset."""
    losses = []
    for mask in masks:
        x, y = features[mask], labels[mask]
        weights = np.linalg.solve(x.T @ x + penalty * np.eye(features.shape[1]), x.T @ y)
        losses.append((features @ weights - labels) ** 2)
    return np.array(losses)


def adjusted_given(masks, losses, regressors):
    """The adjusted estimate of one target of known regressors: values and errors `[N]`."""
    members, examples = masks.shape
    design = np.column_stack([np.ones(members), masks[:, regressors].astype(float)])
    fitted, *_ = np.linalg.lstsq(design, losses, rcond=None)
    residual = losses - design @ fitted
    freedom = members - 1 - len(regressors)
    values, errors = np.empty(examples), np.empty(examples)
    inverse = np.linalg.inv(design.T @ design)
    covariance = inverse @ (design.T * residual**2) @ design @ inverse * members / freedom
    for i in range(examples):
        if i in regressors:
            place = 1 + list(regressors).index(i)
            values[i], errors[i] = -fitted[place], covariance[place, place] ** 0.5
        else:
            with_i, without_i = residual[masks[:, i]], residual[~masks[:, i]]
            values[i] = mean(without_i) - mean(with_i)
            spread = variance(with_i) / len(with_i) + variance(without_i) / len(without_i)
            errors[i] = (spread * (members - 1) / freedom) ** 0.5
    return values, errors
