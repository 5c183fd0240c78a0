"""A search: points chosen one after the other by Optuna's tree-structured Parzen estimator.

Bergstra et al. 2011, Algorithms for hyper-parameter optimization. What was asked and what it gave
is in `search.journal`, a file that several processes may append to. A point that a killed search
left without an answer is taken up again before new ones are asked for.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from gen_jax.errors import InputError
from gen_jax.selection import better, cost
from gen_jax.sweeps import results
from gen_jax.sweeps.configs import config_of
from gen_jax.sweeps.runner import check_done, check_ended, write_trials
from gen_jax.sweeps.study import (
    SEED,
    Choice,
    Law,
    LogUniform,
    Point,
    Study,
    Trial,
    check_laws,
    check_types,
    make_trial,
    seeds_of,
)

Run = Callable[[Sequence[Trial]], None]


def check_search(study: Study) -> list[Trial]:
    """A trial at the edge of each law, for the fields to be checked by.

    Raises:
      InputError: a search that cannot be made, or Optuna is not there.
    """
    check_types(study)
    search = study.search
    if study.points:
        raise InputError('points: a study has points or a search, not both')
    if search.num_trials < 1:
        raise InputError(f'search.num_trials: {search.num_trials} must be 1 or more')
    if search.metric not in study.metrics:
        raise InputError(f'search.metric: {search.metric!r} is none of metrics {study.metrics}')
    if better(search.metric) == 'nowhere':
        raise InputError(f'search.metric: no value of {search.metric!r} is better than another')
    check_laws('search.fields', search.fields)
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise InputError("search: needs Optuna; pip install 'gen_jax[search]'") from None
    edges = {
        name: law.values if isinstance(law, Choice) else (law.low, law.high)
        for name, law in search.fields.items()
    }
    points = [{name: values[-1 * last] for name, values in edges.items()} for last in (0, 1)]
    return [make_trial(i, study.config, {**point, SEED: 0}) for i, point in enumerate(points)]


def search_points(study: Study, folder: Path, at_a_time: int, run: Run) -> list[Trial]:
    """Asks for points and runs them, so many at a time, until all have been answered.

    Args:
      folder: of the sweep.
      run: runs these trials; a point one of whose trials failed has no answer, and stays so.

    Returns:
      The trials of all points and seeds.

    Raises:
      InputError: the config is another one than that of trials that are done.
      Preempted: trials were stopped; their points are taken up again.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    asked = study.search
    found = optuna.create_study(
        study_name='search',
        storage=JournalStorage(JournalFileBackend(str(folder / 'search.journal'))),
        direction='minimize',  # of `cost`
        load_if_exists=True,
    )
    trials = {t.number: trials_of(study, t.number, t.params) for t in found.trials}
    for trial in _once(trials.values()):
        check_done(trial, config_of(trial), folder)
    while True:
        unanswered = []
        for left in found.trials:
            if not left.state.is_finished():  # what it lacks, if it was killed between two fields
                taken_up = optuna.trial.Trial(found, left._trial_id)
                trials[left.number] = trials_of(
                    study, left.number, _suggest(taken_up, asked.fields)
                )
                unanswered.append(left.number)
        num_new = min(at_a_time - len(unanswered), asked.num_trials - len(trials))
        # Of its own for each round, so that a search taken up again does not repeat its draws.
        found.sampler = optuna.samplers.TPESampler(seed=asked.seed + len(trials))
        for _ in range(num_new):
            new = found.ask()
            trials[new.number] = trials_of(study, new.number, _suggest(new, asked.fields))
            unanswered.append(new.number)
        if not unanswered:
            break
        write_trials(_once(trials[number] for number in sorted(trials)), folder)
        run(_once(trials[number] for number in unanswered))  # two may be the same point
        for number in unanswered:
            check_ended(trials[number], folder)
            value = _answer(study, trials[number], folder)
            failed = optuna.trial.TrialState.FAIL if value is None else None
            found.tell(number, value, state=failed)
    return _once(trials[number] for number in sorted(trials))


def _once(points: Iterable[Sequence[Trial]]) -> list[Trial]:
    """The trials of these points, each once."""
    return [*{trial.name: trial for trials in points for trial in trials}.values()]


def trials_of(study: Study, number: int, point: Point) -> list[Trial]:
    """The trials of one point, one for each seed."""
    seeds = seeds_of(study)
    return [
        make_trial(number * len(seeds) + i, study.config, {**point, SEED: seed})
        for i, seed in enumerate(seeds)
    ]


def _answer(study: Study, trials: Sequence[Trial], folder: Path) -> float | None:
    """The mean of the metric over the seeds, as a cost; None where one of them has none."""
    metric = study.search.metric
    rows = results.rows_of((metric,), trials, folder)
    values = results.values_of(rows, metric)
    mean = results.estimate([*values.values()])
    return None if mean is None or mean.n < len(trials) else cost(metric, mean.mean)


def _suggest(trial, fields: Mapping[str, Law]) -> dict:
    point = {}
    for name, law in fields.items():
        if isinstance(law, Choice):
            point[name] = trial.suggest_categorical(name, [*law.values])
        elif isinstance(law, LogUniform):
            point[name] = trial.suggest_float(name, law.low, law.high, log=True)
        elif isinstance(law.low, int) and isinstance(law.high, int):
            point[name] = trial.suggest_int(name, law.low, law.high)
        else:
            point[name] = trial.suggest_float(name, law.low, law.high)
    return point
