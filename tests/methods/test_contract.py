"""What the trainer relies on, for every method there is. A new method is one more line here."""

import functools
import importlib
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gen_jax.data.dataset import training_batches
from gen_jax.run import assemble, load_data
from gen_jax.state import init_state, sampling_params

# Configs that together build every method, in their tiny form, and what makes them tinier still:
# what is tested here is the method, and the networks have tests of their own.
METHODS = {
    'ddpm_digits': {},
    'ddpm_cifar': {},
    'ddpm_8gaussians': {},
    'feature_net_digits': {},
    'igpt_digits': {},
    'gpt_jsb': {},
    'lstm_jsb': {},
    'ssvae_digits': {'networks.autoencoder.widths': (8,)},
    'pixelcnn_digits': {'networks.model.num_levels': 1},
    'pixelcnn_cifar': {'networks.model.num_levels': 1},
    'iwae_bmnist': {},
    'vae_digits': {'networks.autoencoder.channel_multipliers': (1,)},
    'latent_flow_digits': {'networks.autoencoder.channel_multipliers': (1,)},
    'vdvae_digits': {'networks.autoencoder.levels': ((8, 1, 1), (1, 1, 1))},
    # Dropout, for a loss that follows its key.
    'vqgan_cifar': {'networks.autoencoder.dropout': 0.1},
    'vq_gpt_digits': {},
    'dcgan_mnist': {},  # norms that are told labels
    # A game that only compares logits would leave a constant in them alone.
    'gan_8gaussians': {'method.adversarial.name': 'adversarial.non_saturating'},
    # R2, for a penalty that follows its key.
    'stylegan2_ada_cifar': {'method.r2': 0.01},
}


@pytest.fixture(scope='module', params=METHODS)
def case(request):
    """A method with a batch of its data, on one device, at the start and after two steps.

    `steps` holds what each phase computed in these steps and, without its update, in one more.
    """
    config = importlib.import_module(f'configs.{request.param}').get_config('smoke')
    config.update_from_flattened_dict(METHODS[request.param])
    run = assemble(config)
    method = run.method
    batches = training_batches(load_data(config).train, batch_size=8, seed=0)
    batch = next(batches)
    batches.close()
    start = nn.unbox(jax.jit(functools.partial(init_state, method, run.optimizers))(0, batch))

    def program_of(phase):
        player = phase.player

        def turn(state, batch, key):
            def loss_of(own):
                return phase.loss({**state.params, player: own}, state, batch, key)

            own = state.params[player]
            (loss, aux), gradient = jax.value_and_grad(loss_of, has_aux=True)(own)
            model_state, metrics = aux
            update = run.optimizers[player].update
            updates, opt_state = update(gradient, state.opt_state[player], own)
            after = state.replace(
                params={**state.params, player: optax.apply_updates(own, updates)},
                opt_state={**state.opt_state, player: opt_state},
                model_state=model_state,
            )
            return {'loss': loss, 'metrics': metrics, 'gradient': gradient}, after

        return jax.jit(turn)

    programs = [program_of(phase) for phase in method.phases]
    # At the start zero kernels hide whatever lies behind them, and theirs what lies further back.
    state, steps = start, []
    for step in range(3):
        steps.append([])
        for index, program in enumerate(programs):
            key = jax.random.fold_in(jax.random.key(step), index)
            result, after = program(state, batch, key)
            steps[-1].append(SimpleNamespace(**result))
            if step < 2:
                state = after
    return SimpleNamespace(
        method=method,
        spec=run.spec,
        batch=batch,
        start=start,
        state=state,
        params=sampling_params(state),
        steps=steps,
        programs=programs,
        options=config.sample.options.to_dict(),
        evaluate=jax.jit(method.evaluate),
    )


def layout(tree) -> dict[str, tuple]:
    """The name, shape and type of every leaf."""
    return {
        jax.tree_util.keystr(path): (leaf.shape, leaf.dtype)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def test_every_named_player_exists(case):
    assert case.method.trained
    assert set(case.method.trained) | set(case.method.averaged) <= set(case.start.params)
    assert all(jax.tree.leaves(tree) for tree in case.start.params.values())
    assert all(phase.every >= 1 for phase in case.method.phases)


def test_every_phase_has_a_finite_scalar_loss_and_metrics(case):
    for step in case.steps:
        for turn in step:
            assert turn.loss.shape == () and np.isfinite(turn.loss)
            assert turn.metrics
            for name, value in turn.metrics.items():
                assert value.shape == () and np.isfinite(value), name


def test_gradients_are_finite_and_reach_every_leaf_of_their_player(case):
    """In one of the player's turns at least: a penalty on slopes says nothing of a constant."""
    largest = {}
    for phase, turn in zip(case.method.phases, case.steps[-1], strict=True):
        for path, leaf in jax.tree_util.tree_leaves_with_path(turn.gradient):
            size = np.abs(np.asarray(leaf)).max()
            name = phase.player + jax.tree_util.keystr(path)
            assert size < np.inf, name
            largest[name] = max(size, largest.get(name, 0))
    assert [name for name, size in largest.items() if size == 0] == []


def test_a_step_keeps_every_name_shape_and_type_of_the_state(case):
    assert layout(case.state) == layout(case.start)
    for name, (_, dtype) in layout(case.start.model_state).items():
        assert jnp.issubdtype(dtype, jnp.floating), name  # they are averaged over devices


def test_loss_is_a_function_of_its_key(case):
    for index, program in enumerate(case.programs):
        losses = [
            program(case.state, case.batch, jax.random.key(seed))[0]['loss'] for seed in (7, 7, 8)
        ]
        assert losses[0] == losses[1] != losses[2], index


def test_samples_match_the_spec_and_follow_their_key(case):
    if case.method.sample is None:
        assert case.method.nfe is None and case.method.num_classes is None
        return
    label = None
    if case.method.num_classes is not None:
        label = jnp.arange(8) % case.method.num_classes
    assert case.method.nfe(**case.options) >= 1
    sample = jax.jit(functools.partial(case.method.sample, num=8, **case.options))
    first, again, other = (
        np.asarray(sample(case.params, case.state.model_state, jax.random.key(n), cond=label))
        for n in (0, 0, 1)
    )
    assert first.shape == (8, *case.spec.shape) and first.dtype == case.spec.dtype
    assert np.all(np.isfinite(first))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(np.unique(first, axis=0)) == 8  # no two samples are one


def test_evaluation_is_per_example_with_an_estimator_for_every_number(case):
    values, again = (
        case.evaluate(case.params, case.state.model_state, case.batch, jax.random.key(0))
        for _ in range(2)
    )
    assert values
    for name, column in values.items():
        assert case.method.estimators[name].strip(), name
        assert not isinstance(column, jax.Array) or column.shape == (8,), name
        # Other kinds of columns have several parts.
        for part, same in zip(*map(jax.tree.leaves, (column, again[name])), strict=True):
            assert part.shape[0] == 8 and np.all(np.isfinite(part)), name
            np.testing.assert_array_equal(part, same)
