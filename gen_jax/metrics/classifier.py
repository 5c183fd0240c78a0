"""What classifiers say: the Inception-style score, and the two-sample test.

    (1) score = exp E_x KL(p(y|x) || p(y)),   p(y) = E_x p(y|x)              (Salimans et al. 2016)
    (2) C2ST: a classifier is trained to tell samples from real examples on one half, and its
        accuracy on the other half is 1/2 where nothing tells them apart      (Lopez-Paz & Oquab
        2017)

(1) is the Inception Score only with the probabilities of that Inception network.
"""

import warnings

import numpy as np


def inception_style_score(probabilities: np.ndarray, num_splits: int = 10) -> tuple[float, float]:
    """Equation (1) for `[N, K]`: the mean over splits, as published, and its standard error.

    Raises:
      ValueError: fewer examples than splits, or fewer than two splits.
    """
    if num_splits < 2 or len(probabilities) < num_splits:
        raise ValueError(f'{len(probabilities)} examples in {num_splits} splits; use 2 or more')
    scores = []
    for part in np.array_split(np.asarray(probabilities, np.float64), num_splits):
        marginal = part.mean(0, keepdims=True)
        with np.errstate(divide='ignore', invalid='ignore'):
            terms = np.where(part > 0, part * (np.log(part) - np.log(marginal)), 0.0)
        scores.append(np.exp(terms.sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores, ddof=1) / np.sqrt(num_splits))


def two_sample_test(real: np.ndarray, samples: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Equation (2) for features `[N, D]` and `[M, D]`: accuracy and its standard error.

    Both sets are cut to the size of the smaller one, so that guessing gives 1/2. Each half is
    tested by the network trained on the other; the error is that of the mean over all examples.

    Raises:
      ValueError: fewer than 20 examples in a set.
    """
    if min(len(real), len(samples)) < 20:
        raise ValueError(f'a two-sample test of {len(real)} and {len(samples)} examples; 20 needed')
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(seed)
    size = min(len(real), len(samples))
    x = np.concatenate([rng.permutation(a)[:size] for a in (real, samples)])
    y = np.repeat([0, 1], size)
    fold = np.tile(np.arange(size) % 2, 2)
    right = np.empty(2 * size)
    for test in (0, 1):
        # Weight decay holds a network to what it can learn of few examples; stopping early by a
        # tenth of them, as is common, stopped at the start.
        network = MLPClassifier((64,), alpha=1.0, max_iter=100, random_state=seed)
        classifier = make_pipeline(StandardScaler(), network)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', ConvergenceWarning)  # 100 epochs are the method
            classifier.fit(x[fold != test], y[fold != test])
        right[fold == test] = classifier.predict(x[fold == test]) == y[fold == test]
    return float(right.mean()), float(right.std(ddof=1) / np.sqrt(len(right)))
