"""What the trainer relies on, for every method there is. A new method is one more line here."""

import functools
import importlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax import parallel
from gen_jax.data.dataset import training_batches
from gen_jax.run import assemble, initialize, load_data
from gen_jax.state import sampling_params
from gen_jax.step import run_phase, train_step

# Configs that together build every method, each in its tiny form.
METHODS = ('ddpm_digits', 'ddpm_mnist', 'ddpm_cifar')


@pytest.fixture(scope='module', params=METHODS)
def case(request):
    """A method at step 0 and after one step, with a batch of its data."""
    config = importlib.import_module(f'configs.{request.param}').get_config('smoke')
    run = assemble(config)
    batches = training_batches(load_data(config).train, batch_size=8, seed=0)
    batch = parallel.place(run.parallel, next(batches))
    batches.close()
    state = initialize(run, 0)
    step = functools.partial(
        train_step, method=run.method, optimizers=run.optimizers, ema_decay=config.ema.decay
    )
    after, metrics = jax.jit(step)(state, batch)
    jit = run.parallel.jit
    return SimpleNamespace(
        run=run,
        method=run.method,
        batch=batch,
        state=state,
        after=after,
        metrics=metrics,
        sample=jit(functools.partial(run.method.sample, num=8, **config.sample.options.to_dict())),
        evaluate=jit(
            functools.partial(run.method.evaluate, **config.evaluate.options.to_dict()),
            out_shardings=run.parallel.replicated,
        ),
    )


def layout(tree) -> dict[str, tuple]:
    """The name, shape and type of every leaf."""
    return {
        jax.tree_util.keystr(path): (leaf.shape, leaf.dtype)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def equal(one, other) -> bool:
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def test_every_named_player_exists(case):
    assert case.method.trained
    assert set(case.method.trained) | set(case.method.averaged) <= set(case.state.params)
    assert all(jax.tree.leaves(tree) for tree in case.state.params.values())


def test_every_phase_has_finite_metrics(case):
    for index, phase in enumerate(case.method.phases):
        assert phase.every >= 1
        mine = {k: v for k, v in case.metrics.items() if k.startswith(f'{phase.player}/')}
        assert f'{phase.player}/grad_norm' in mine, index
        for name, value in mine.items():
            assert value.shape == () and np.isfinite(value), name


def test_every_phase_has_a_gradient_for_its_player_and_moves_no_other(case):
    # After one step: at the start zero kernels hide whatever lies behind them.
    for index, phase in enumerate(case.method.phases):
        optimizer = case.run.optimizers[phase.player]

        def gradient(state, batch, key, phase=phase):
            def loss_of(own):
                return phase.loss({**state.params, phase.player: own}, state, batch, key)

            return jax.value_and_grad(loss_of, has_aux=True)(state.params[phase.player])

        def move(state, batch, key, phase=phase, optimizer=optimizer):
            return run_phase(state, batch, phase, optimizer, key, None)[0]

        key = jax.random.key(index)
        (loss, _), grads = jax.jit(gradient)(case.after, case.batch, key)
        assert loss.shape == () and np.isfinite(loss)
        sizes = {
            jax.tree_util.keystr(path): np.abs(np.asarray(leaf)).max()
            for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
        }
        assert all(np.isfinite(size) for size in sizes.values()), sizes
        reached = sum(size > 0 for size in sizes.values())
        assert reached > len(sizes) / 2, [name for name, size in sizes.items() if not size > 0]

        moved = jax.jit(move)(case.after, case.batch, key)
        for player, tree in case.after.params.items():
            assert equal(moved.params[player], tree) == (player != phase.player), player


def test_a_step_keeps_every_shape_and_type_of_the_state(case):
    assert layout(case.after) == layout(case.state)
    for name, (_, dtype) in layout(case.state.model_state).items():
        assert jnp.issubdtype(dtype, jnp.floating), name  # they are averaged over devices


def test_untrained_players_stay(case):
    for player in set(case.state.params) - set(case.method.trained):
        assert equal(case.after.params[player], case.state.params[player]), player


def test_samples_match_the_spec_and_follow_their_key(case):
    spec, params = case.run.spec, sampling_params(case.after)
    first, again, other = (
        np.asarray(case.sample(params, case.after.model_state, jax.random.key(seed)))
        for seed in (0, 0, 1)
    )
    assert first.shape == (8, *spec.shape) and first.dtype == spec.dtype
    assert np.all(np.isfinite(first))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(np.unique(first, axis=0)) == 8  # no two samples are one


def test_conditional_samples_take_labels(case):
    if case.method.num_classes is None:
        pytest.skip('this method takes no labels')
    label = jnp.arange(8) % case.method.num_classes
    params = sampling_params(case.after)
    x = case.sample(params, case.after.model_state, jax.random.key(0), cond=label)
    assert x.shape == (8, *case.run.spec.shape)


def test_evaluation_is_per_example_with_an_estimator_for_every_number(case):
    params, key = sampling_params(case.after), jax.random.key(0)
    values = case.evaluate(params, case.after.model_state, case.batch, key)
    again = case.evaluate(params, case.after.model_state, case.batch, key)
    assert values
    for name, column in values.items():
        assert column.shape == (8,) and np.all(np.isfinite(column)), name
        assert case.method.estimators[name].strip(), name
        np.testing.assert_array_equal(column, again[name])


def test_loss_follows_its_key_and_reads_the_batch(case):
    for phase in case.method.phases:
        loss = jax.jit(lambda batch, key, p=phase: p.loss(case.state.params, case.state, batch, key)[0])
        key = jax.random.key(3)
        assert loss(case.batch, key) == loss(case.batch, key)
