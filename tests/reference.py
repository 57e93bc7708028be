"""Slow, obvious truths, written as loops in plain float64 numpy. Nothing here is clever."""

import itertools
import math

import numpy as np
import scipy.stats


def difference_in_means(masks, losses, target_examples=None):
    """Influence [N T] and its standard error [N T], one entry at a time."""
    examples, targets = masks.shape[1], losses.shape[1]
    if target_examples is None:
        target_examples = range(targets) if targets == examples else [-1] * targets
    values = np.zeros((examples, targets))
    standard_error = np.zeros((examples, targets))
    for i in range(examples):
        for t in range(targets):
            with_i = [float(x) for x in losses[masks[:, i], t]]
            without_i = [float(x) for x in losses[~masks[:, i], t]]
            values[i, t] = mean(without_i) - mean(with_i)
            standard_error[i, t] = error_of_difference(with_i, without_i)
    if any(own >= 0 for own in target_examples):
        for t, error in enumerate(self_errors(masks, losses, target_examples)):
            if target_examples[t] >= 0:
                standard_error[target_examples[t], t] = error
    return values, standard_error


def error_of_difference(with_i, without_i):
    """Student's, widened for the shape of the losses; or Welch's if beyond noise and larger."""
    n, m = len(with_i), len(without_i)
    every = [*with_i, *without_i]
    centre, share = mean(every), n / (n + m)
    moments = [mean([(x - centre) ** power for x in every]) for power in (2, 3, 4)]
    skewness, kurtosis = 0.0, 0.0
    if moments[0] > 0:
        skewness = moments[1] / moments[0] ** 1.5
        kurtosis = moments[2] / moments[0] ** 2 - 3
    spread = share * (1 - share)
    of_kurtosis = (1 - 6 * spread) / spread * kurtosis / (n + m)
    of_skewness = (1 - 2 * share) ** 2 / spread * skewness**2 / (n + m)
    z = 1.96
    # Of P(|sum| > z) for a sum of these cumulants, divided by the normal density and by z.
    widening = 1 + of_kurtosis * (z**2 - 3) / 24 + of_skewness * (z**4 - 10 * z**2 + 15) / 72
    widening = min(max(widening, 1), 1.3)
    within = (n - 1) * variance(with_i) + (m - 1) * variance(without_i)
    pooled = within / (n + m - 2) * (1 / n + 1 / m) * widening**2
    difference = mean(without_i) - mean(with_i)
    if difference**2 > 16 * pooled:
        pooled = max(pooled, variance(with_i) / n + variance(without_i) / m)
    return math.sqrt(pooled)


def error_of_sum(masks, losses, group, variance):
    """Of a sum of differences of means, as a weighted sum of losses; `variance` if it is larger."""
    members = len(masks)
    weights = [
        sum((-1 if masks[m, i] else 1) / (masks[:, i] == masks[m, i]).sum() for i in group)
        for m in range(members)
    ]
    centred = [float(x) - mean(losses) for x in losses]
    moments = [math.fsum(x**k for x in centred) / members for k in (2, 3, 4)]
    skewness = moments[1] / moments[0] ** 1.5
    kurtosis = moments[2] / moments[0] ** 2 - 3
    square, cube, fourth = (math.fsum(w**k for w in weights) for k in (2, 3, 4))
    of_kurtosis = (members * fourth / square**2 - 3) * kurtosis / members
    of_skewness = members * cube**2 / square**3 * skewness**2 / members
    z = 1.96
    widening = 1 + of_kurtosis * (z**2 - 3) / 24 + of_skewness * (z**4 - 10 * z**2 + 15) / 72
    value = math.fsum(w * x for w, x in zip(weights, centred, strict=True))
    within = math.fsum(x**2 for x in centred) - value**2 / square
    pooled = within / (members - 2) * square * min(max(widening, 1), 1.3) ** 2
    return math.sqrt(max(pooled, variance) if value**2 > 16 * pooled else pooled)


def self_errors(masks, losses, target_examples):
    """Welch's, with what was not met, times a ratio of quantiles of Student's t."""
    members = len(masks)
    own = [t for t, example in enumerate(target_examples) if example >= 0]
    without = {t: losses[~masks[:, target_examples[t]], t].astype(float) for t in own}
    above = {t: max(without[t]) - mean(losses[:, t].tolist()) for t in own}
    high = np.quantile(list(above.values()), 0.75)
    found = np.full(len(target_examples), np.nan)
    for t in own:
        contributions = []
        for group in (losses[masks[:, target_examples[t]], t].astype(float), without[t]):
            size, centre = len(group), mean(group)
            contributions += [
                (x - centre) / math.sqrt(size * (size - 1)) * (1 if group is without[t] else -1)
                for x in group
            ]
        unseen = 0.0
        if len(without[t]) < 32:
            unseen = max(high - above[t], 0) / len(without[t])
        found[t] = widened_error(contributions, members, unseen)
    return found


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
    weights = np.linalg.inv(design.T @ design) @ design.T
    leverage = [float(design[m] @ weights[:, m]) for m in range(members)]
    for i in range(examples):
        if i in regressors:
            place = 1 + list(regressors).index(i)
            values[i] = -fitted[place]
            contributions = [
                weights[place, m] * residual[m] / math.sqrt(1 - leverage[m]) for m in range(members)
            ]
            errors[i] = widened_error(contributions, members)
        else:
            with_i, without_i = residual[masks[:, i]], residual[~masks[:, i]]
            values[i] = mean(without_i) - mean(with_i)
            error = error_of_difference(with_i.tolist(), without_i.tolist())
            errors[i] = error * ((members - 1) / freedom) ** 0.5
    return values, errors


def widened_error(contributions, members, unseen=0.0):
    """Root of the sum of squares, times a ratio of quantiles of Student's t."""
    square, cube, fourth = (math.fsum(c**power for c in contributions) for power in (2, 3, 4))
    freedom = members - 2.0
    if square > 0:
        freedom = 3 * square**2 / fourth
        if cube:
            freedom = min(freedom, square**3 / (2 * cube**2))
        freedom = min(max(freedom, 1.0), members - 2.0)
    quantiles = [scipy.stats.t.ppf(0.975, degrees) for degrees in (freedom, members - 2)]
    return math.hypot(math.sqrt(square), unseen) * quantiles[0] / quantiles[1]


# Convergence


def median_standard_error(masks, losses, target_examples):
    """Of the off-diagonal entries, by the difference of means."""
    _, standard_error = difference_in_means(masks, losses, target_examples)
    return float(np.median(off_diagonal(standard_error, target_examples)))


# Membership inference.


def lira_score(masks, gaps, own, m, t, *, online, one_variance):
    """LiRA's score of member m on target t by the gaps [M T] of members of other masks."""
    others = [k for k in range(len(masks)) if masks[k].tolist() != masks[m].tolist()]

    def side(target, included):
        return [float(gaps[k, target]) for k in others if masks[k, own[target]] == included]

    def normal(included):
        here = side(t, included)
        if not one_variance:
            return mean(here), variance(here)
        sides = [side(target, included) for target in range(gaps.shape[1])]
        squares = math.fsum(variance(s) * (len(s) - 1) for s in sides if len(s) > 1)
        return mean(here), squares / sum(len(s) - 1 for s in sides)

    def log_density(x, centre, spread):
        return -0.5 * math.log(2 * math.pi * spread) - (x - centre) ** 2 / (2 * spread)

    x = float(gaps[m, t])
    if online:
        return log_density(x, *normal(True)) - log_density(x, *normal(False))
    centre, spread = normal(False)
    return (x - centre) / math.sqrt(spread)


def rmia_score(masks, losses, own, m, t, *, gamma):
    """RMIA's score of member m on target t by the losses [M T] of members of other masks."""
    others = [k for k in range(len(masks)) if masks[k].tolist() != masks[m].tolist()]

    def ratio(target):
        p_in = mean([math.exp(-losses[k, target]) for k in others if masks[k, own[target]]])
        p_out = mean([math.exp(-losses[k, target]) for k in others if not masks[k, own[target]]])
        return math.exp(-losses[m, target]) / ((p_in + p_out) / 2)

    population = [z for z in range(losses.shape[1]) if z != t]
    return mean([float(ratio(t) / ratio(z) >= gamma) for z in population])


def roc_points(scores, included):
    """(false-positive rate, true-positive rate) of every threshold, from (0, 0) to (1, 1)."""
    cuts = sorted(set(scores.ravel().tolist()), reverse=True)
    return [(0.0, 0.0)] + [
        (float((scores[~included] >= cut).mean()), float((scores[included] >= cut).mean()))
        for cut in cuts
    ]


def largest_true_positive_rate(points, rate):
    """The highest point of the polygon through the points, at this false-positive rate."""
    best = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x1 <= rate:
            best = max(best, y1)
        elif x0 <= rate:
            best = max(best, y0 + (y1 - y0) * (rate - x0) / (x1 - x0))
    return best


# Near-duplicates and groups.


def average_precision(scores, positives):
    precisions = []
    for score, positive in zip(scores, positives, strict=True):
        if positive:
            above = [bool(p) for s, p in zip(scores, positives, strict=True) if s >= score]
            precisions.append(float(mean(above)))
    return mean(precisions)


def precision_at_k(scores, positives, k):
    """Expectation over the order of equal scores."""
    cut = sorted(scores, reverse=True)[k - 1]
    above = [bool(p) for s, p in zip(scores, positives, strict=True) if s > cut]
    equal = [bool(p) for s, p in zip(scores, positives, strict=True) if s == cut]
    return (sum(above) + (k - len(above)) * sum(equal) / len(equal)) / k


def unordered_pairs(examples):
    return [(i, j) for i in range(examples) for j in range(i + 1, examples)]


def pair_score(values, errors, own, i, j, *, floor):
    """Score and z-score of two examples as near-duplicates, from the whole matrix [N T]."""
    ratios, zs = [], []
    for target_example, other in ((i, j), (j, i)):
        if target_example in own:
            t = list(own).index(target_example)
            itself = max(values[target_example, t], floor * errors[target_example, t])
            ratios.append(values[other, t] / itself)
            zs.append(values[other, t] / errors[other, t])
    return mean(ratios), mean(zs)


def connected(examples, pairs):
    """Cluster of each example, numbered by their first examples."""
    cluster = list(range(examples))
    for _ in range(examples):
        for i, j in pairs:
            cluster[i] = cluster[j] = min(cluster[i], cluster[j])
    return [sorted(set(cluster)).index(c) for c in cluster]


def group_influence(masks, losses, groups):
    """Of every group, in the order of ids, on every target: without all of it - with all of it."""
    rows = []
    for group in sorted(set(groups)):
        members = [i for i, g in enumerate(groups) if g == group]
        inside = masks[:, members].all(axis=1)
        outside = ~masks[:, members].any(axis=1)
        rows.append([mean(x[outside].tolist()) - mean(x[inside].tolist()) for x in losses.T])
    return np.array(rows)


def covariance_of_differences(masks, losses, i, k):
    """Of the estimated influences of examples i and k on one target with losses [M]."""

    def added(example, m):
        side = masks[:, example] == masks[m, example]
        n, sign = side.sum(), -1 if masks[m, example] else 1
        return sign * (losses[m] - mean(losses[side].tolist())) / math.sqrt(n * (n - 1))

    return math.fsum(added(i, m) * added(k, m) for m in range(len(masks)))


# Linear datamodels: ridge and LASSO.


def centred_columns(masks):
    return np.column_stack([[float(x) - mean(column) for x in column] for column in masks.T])


def ridge(masks, losses, own, *, penalty):
    """Values and errors `[N]` of one target, each by generalized least squares of its own.

    The effects of all examples but i and the target's own are random, of variance 1 / penalty that
    of the noise. `own` is -1 where the target is no example.
    """
    members, examples = masks.shape
    x, y = centred_columns(masks), losses - mean(losses)
    values, errors = np.empty(examples), np.empty(examples)
    for i in range(examples):
        others = [j for j in range(examples) if j not in (i, own)]
        weight = np.linalg.inv(x[:, others] @ x[:, others].T + penalty * np.eye(members))
        if own >= 0 and own != i:
            of_own = weight @ x[:, own]
            weight -= np.outer(of_own, of_own) / (x[:, own] @ of_own)
        through = x[:, i] @ weight @ x[:, i]
        effect = x[:, i] @ weight @ y / through
        residual = weight @ (y - x[:, i] * effect)
        squares = math.fsum((x[m, i] * residual[m]) ** 2 for m in range(members))
        pooled = mean(x[:, i] ** 2) * math.fsum(residual**2)
        noise = effect**2 <= 16 * pooled * members / (members - 2) / through**2
        if i != own:
            squares = pooled if noise else max(pooled, squares)
        values[i] = -effect
        errors[i] = math.sqrt(squares * members / (members - 2)) / through
    return values, errors


def ridge_cross_validation(masks, losses, penalty):
    """Generalized cross-validation score of one target's ridge regression, by the hat matrix."""
    x, y = centred_columns(masks), losses - mean(losses)
    hat = x @ np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T)
    residual = y - hat @ y
    return math.fsum(residual**2) / (len(y) - 1 - np.trace(hat)) ** 2


def lasso_by_coordinate_descent(columns, losses, penalties):
    """Least of |losses - columns b|^2 / 2 + sum of penalties |b|, one coefficient at a time."""
    coefficients = np.zeros(columns.shape[1])
    for _ in range(2000):
        for i, penalty in enumerate(penalties):
            column = columns[:, i]
            without_i = losses - columns @ coefficients + column * coefficients[i]
            right = column @ without_i
            shrunken = max(abs(right) - penalty, 0) / (column @ column)
            coefficients[i] = math.copysign(shrunken, right)
    return coefficients


def debiased(masks, losses, coefficients):
    """Values and errors `[N]` of one target from the coefficients of a sparse regression."""
    members = len(losses)
    residual = losses - centred_columns(masks) @ coefficients
    kept = 1 - sum(b != 0 for b in coefficients) / (members - 1)
    values, errors = difference_in_means(masks, residual[:, None])
    return values[:, 0] / kept - coefficients, errors[:, 0] / kept


# Uncertainty


def benjamini_hochberg(p, level):
    """True where a p-value is no larger than the last, in order, below its share of the level."""
    ascending = sorted(p)
    largest = max(
        (x for rank, x in enumerate(ascending, start=1) if x <= level * rank / len(p)), default=-1
    )
    return np.array([x <= largest for x in p])
