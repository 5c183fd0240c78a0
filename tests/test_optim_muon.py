"""Muon against NumPy, against AdamW, and in the step of every strategy."""

import functools
import importlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gen_jax import parallel
from gen_jax.checkpoint import Checkpoints, restore_for_use
from gen_jax.errors import InputError
from gen_jax.methods.method import Method, Phase
from gen_jax.optim import optimizer
from gen_jax.run import assemble
from gen_jax.state import TrainState, init_state
from gen_jax.step import train_step

RATES = {'learning_rate': 0.02, 'adam_learning_rate': 0.003}
WIDTH = 32


def muon(**options) -> optax.GradientTransformation:
    return optimizer('muon', **(RATES | options))


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def updates(update: optax.GradientTransformation, params, *gradients) -> list:
    """What is added to the parameters for each gradient; the parameters stay."""
    state, found, step = update.init(params), [], jax.jit(update.update)
    for gradient in gradients:
        added, state = step(gradient, state, params)
        found.append(added)
    return found


def in_block(kernel) -> dict:
    return {'block_0': {'dense': {'kernel': kernel}}}


def orthogonalized(u: np.ndarray, steps: int) -> np.ndarray:
    """X of equation (5), by its definition, in float64."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = u.astype(np.float64) / np.linalg.norm(u)
    for _ in range(steps):
        g = x @ x.T
        x = a * x + (b * g + c * g @ g) @ x
    return x


@pytest.mark.parametrize('shape', [(6, 9), (9, 6)])
@pytest.mark.parametrize('rms', [None, 0.2])
def test_the_update_of_a_matrix_is_that_of_numpy(shape, rms):
    options = {'beta': 0.9, 'ns_steps': 4, 'consistent_rms': rms, 'weight_decay': 0.1}
    w, gradients = normal(0, *shape), [normal(seed, *shape) for seed in (1, 2, 3)]
    found = updates(muon(**options), in_block(w), *map(in_block, gradients))
    m, (rows, columns) = 0.0, shape
    s = max(1, columns / rows) ** 0.5 if rms is None else rms * max(shape) ** 0.5
    for n, g in enumerate(gradients):
        m = 0.9 * m + 0.1 * g
        u = 0.9 * m / (1 - 0.9 ** (n + 2)) + 0.1 * g / (1 - 0.9 ** (n + 1))
        expected = -0.02 * (s * orthogonalized(u, 4) + 0.1 * w)
        np.testing.assert_allclose(
            found[n]['block_0']['dense']['kernel'], expected, rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize('shape', [(64, 32), (48, 96)])
def test_singular_values_are_near_one_and_the_root_mean_square_is_the_one_asked_for(shape):
    gradient = normal(1, *shape) * np.geomspace(1, 30, shape[1], dtype=np.float32)
    before = np.linalg.svd(gradient, compute_uv=False)
    assert before.max() / before.min() > 10 and before.min() / np.linalg.norm(before) > 0.003
    (step,) = updates(muon(consistent_rms=0.2), in_block(0 * gradient), in_block(gradient))
    step = step['block_0']['dense']['kernel'] / -0.02
    after = np.linalg.svd(step / (0.2 * max(shape) ** 0.5), compute_uv=False)
    assert after.min() > 0.68 and after.max() < 1.21
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(step))), 0.2, rtol=0.15)


def test_no_gradient_moves_nothing():
    zero = in_block(jnp.zeros((4, 6)))
    np.testing.assert_array_equal(
        updates(muon(), zero, zero)[0]['block_0']['dense']['kernel'], jnp.zeros((4, 6))
    )


def test_fused_matrices_are_made_orthogonal_each_on_its_own():
    gradient = normal(1, 8, 3, 12)
    (step,) = updates(muon(), in_block(np.zeros_like(gradient)), in_block(gradient))
    for part in range(3):
        alone = in_block(gradient[:, part])
        (expected,) = updates(muon(), in_block(np.zeros_like(gradient[:, part])), alone)
        np.testing.assert_allclose(
            step['block_0']['dense']['kernel'][:, part],
            expected['block_0']['dense']['kernel'],
            rtol=1e-4,
            atol=1e-6,
        )


class Block(nn.Module):
    """A residual branch with a fused kernel `[in, 3, out]`, as attention has it."""

    @nn.compact
    def __call__(self, h):
        kernel = nn.initializers.lecun_normal()
        into = nn.with_logical_partitioning(kernel, ('channels', None, 'hidden'))
        out = nn.with_logical_partitioning(kernel, ('hidden', 'channels'))
        fused = nn.DenseGeneral((3, WIDTH), kernel_init=into, name='qkv')
        q, k, v = jnp.moveaxis(fused(nn.LayerNorm(name='norm')(h)), -2, 0)
        return h + nn.Dense(WIDTH, kernel_init=out, name='out')(q * nn.tanh(k) + v)


class Network(nn.Module):
    """Two blocks between a table of embeddings and a head."""

    scan: bool = False

    @nn.compact
    def __call__(self, x):
        h = nn.Embed(11, WIDTH, name='tokens')(x)
        if self.scan:
            loop = nn.scan(
                lambda block, h, _: (block(h), None),
                variable_axes={'params': 0},
                split_rngs={'params': True},
                length=2,
                metadata_params={nn.PARTITION_NAME: 'layers'},
            )
            h, _ = loop(Block(name='blocks'), h, None)
        else:
            h = Block(name='block_1')(Block(name='block_0')(h))
        return nn.Dense(11, name='head')(nn.LayerNorm(name='norm_out')(h))


def parameters(scan: bool = False) -> dict:
    x = jnp.zeros((2, 3), jnp.int32)
    return nn.unbox(jax.jit(Network(scan).init)(jax.random.key(0), x))['params']


def like(params, seed: int):
    """A gradient of the shape of the parameters."""
    leaves, tree = jax.tree.flatten(params)
    return jax.tree.unflatten(
        tree, [normal(seed + i, *leaf.shape) for i, leaf in enumerate(leaves)]
    )


def stack(params: dict) -> dict:
    """The tree that `nn.scan` would have made."""
    first, second = (params[f'block_{i}'] for i in range(2))
    others = {name: tree for name, tree in params.items() if not name.startswith('block_')}
    return {**others, 'blocks': jax.tree.map(lambda *leaves: np.stack(leaves), first, second)}


def test_stacked_blocks_move_as_blocks_of_their_own_do():
    params = parameters()
    stacked = stack(params)
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(jnp.shape, parameters(scan=True))
    gradients = [like(params, seed) for seed in (0, 100)]
    update = muon(ns_steps=2, weight_decay=0.1, adam_weight_decay=0.1, decayed='matrices')
    ours = updates(update, params, *gradients)
    theirs = updates(update, stacked, *map(stack, gradients))
    for a, b in zip(map(stack, ours), theirs, strict=True):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), dict(a), dict(b)
        )


@pytest.mark.parametrize(('scan', 'decayed'), [(False, 'all'), (True, 'matrices')])
def test_all_but_the_matrices_of_blocks_follow_adamw(scan, decayed):
    params = parameters(scan)
    gradients = [like(params, seed) for seed in (0, 100, 200)]
    shape = {'schedule': 'linear', 'warmup_steps': 2, 'decay_steps': 4, 'final_rate': 0.1}
    adamw = {'b1': 0.8, 'b2': 0.95, 'weight_decay': 0.3}
    ours = updates(
        muon(ns_steps=1, **shape, **{f'adam_{k}': v for k, v in adamw.items()}, decayed=decayed),
        params,
        *gradients,
    )
    theirs = updates(
        optimizer('adamw', learning_rate=0.003, **shape, **adamw, decayed=decayed),
        params,
        *gradients,
    )
    same = jax.tree.map(lambda a, b: bool((a == b).all()), ours, theirs)
    for path, equal in jax.tree.leaves_with_path(same):
        names = [key.key for key in path[1:]]
        is_matrix = names[-1] == 'kernel' and names[0].startswith('block')
        assert equal != is_matrix, names


def test_moments_lie_where_their_parameters_do():
    config = importlib.import_module('configs.ddpm_8gaussians').get_config('smoke')
    config.networks.model.update(width=64, num_blocks=2, scan=True)
    config.optim.model = {'name': 'muon', 'clip_norm': 1.0, 'decayed': 'matrices', **RATES}
    config.parallel.update(fsdp=2, tensor=2)
    state = assemble(config).template
    places = {
        tuple(key.key for key in path): leaf
        for path, leaf in jax.tree.leaves_with_path(state.params['model'])
    }
    moments = {}
    for path, leaf in jax.tree.leaves_with_path(state.opt_state['model']):
        if any(getattr(key, 'name', None) == 'mu' for key in path):
            names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
            moments[tuple(name for name in names if name not in ('muon', 'adamw'))] = leaf
    assert moments == places  # shapes, types and places
    found = moments['blocks', 'dense_0', 'kernel'].sharding.spec
    assert tuple(found) == (None, 'fsdp', 'tensor')


def regression(scan: bool) -> Method:
    """The next token from this one; nothing is random."""
    network = Network(scan)

    def init(key, batch):
        return {'model': network.init(key, batch['x'])['params']}, {}

    def loss(params, state, batch, key):
        logits = network.apply({'params': params['model']}, batch['x'])
        value = optax.softmax_cross_entropy_with_integer_labels(logits, batch['y']).mean()
        return value * batch['scale'].mean(), ({}, {'loss': value})

    return Method(
        init=init,
        phases=(Phase('model', loss),),
        sample=None,
        evaluate=lambda params, model_state, batch, key: {},
        estimators={},
        averaged=('model',),
    )


def batch_at(step: int, scale: float = 1.0) -> dict:
    x = np.random.default_rng(step).integers(0, 11, (16, 8)).astype(np.int32)
    return {'x': x, 'y': (3 * x + 1) % 11, 'scale': np.full(16, scale, np.float32)}


def start(layout: parallel.Parallel, scan: bool = True):
    """A first state where it belongs, and the compiled step, with all that a step can have."""
    method = regression(scan)
    update = muon(ns_steps=3, clip_norm=1.0, weight_decay=0.1, decayed='matrices')
    begin = functools.partial(init_state, method, {'model': update}, 0, batch_at(0), 2)
    shardings = parallel.state_shardings(layout, jax.eval_shape(begin))
    step = functools.partial(
        train_step,
        method=method,
        optimizers={'model': update},
        ema_decay=0.9,
        ema_lengths=(0.05, 0.1),
        num_parts=2,
    )
    state = jax.jit(lambda: nn.unbox(begin()), out_shardings=shardings)()
    return state, parallel.compile_step(layout, step, shardings)


def train(layout: parallel.Parallel, state: TrainState, step, *numbers: int) -> TrainState:
    for number in numbers:
        state, _ = step(state, parallel.place_for_step(layout, batch_at(number)))
    return state


def learned(state: TrainState) -> list[np.ndarray]:
    """All that a skipped step leaves as it was."""
    parts = (state.params, state.opt_state, state.ema_params, state.power_ema)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(parts)]


ALONE = parallel.lay_out(devices=jax.devices()[:1])


@pytest.fixture(scope='module')
def alone():
    """On one device: the step, and the state after two steps as a function, since steps eat it."""
    state, step = start(ALONE)
    state = train(ALONE, state, step, 0, 1)
    return step, lambda: jax.tree.map(jnp.copy, state)


@pytest.mark.parametrize(
    'options', [{'strategy': 'pmap'}, {'data': 2, 'fsdp': 2, 'tensor': 2}], ids=str
)
def test_eight_devices_learn_what_one_does(options, alone):
    layout = parallel.lay_out(**options)
    state = train(layout, *start(layout), 0, 1)
    for ours, theirs in zip(learned(state), learned(alone[1]()), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_a_bad_batch_leaves_the_optimizer_as_it_was(alone):
    step, state = alone[0], alone[1]()
    before = learned(state)
    state, metrics = step(state, parallel.place_for_step(ALONE, batch_at(2, scale=np.nan)))
    assert metrics['skipped'] == 1
    for ours, theirs in zip(learned(state), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_goes_on_from_a_checkpoint_bit_for_bit(alone, tmp_path):
    step, state = alone[0], alone[1]()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, state)
    template = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )
    restored = restore_for_use(template, tmp_path)
    for ours, theirs in zip(
        learned(train(ALONE, restored, step, 2)),
        learned(train(ALONE, state, step, 2)),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'adam_learning_rate': 0.0}, 'optim.adam_learning_rate: 0.0 must be above 0'),
        ({'b1': 0.9}, "optim.b1: muon takes no 'b1'; it takes adam_learning_rate, beta"),
        ({'mask': None}, "optim.mask: muon takes no 'mask'"),
        ({'ns_steps': 0}, 'optim.ns_steps'),
        ({'beta': 1.0}, 'optim.beta'),
        ({'consistent_rms': 0.0}, 'optim.consistent_rms'),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError) as error:
        muon(**options)
    assert message in str(error.value)


def test_the_rate_of_the_rest_is_needed():
    with pytest.raises(InputError, match=r'optim.adam_learning_rate: muon needs it'):
        optimizer('muon', learning_rate=0.02)


@pytest.mark.parametrize(
    ('params', 'message'),
    [
        ({'up_0_block_1': {'kernel': jnp.zeros((4, 4))}}, 'this network has none'),
        ({'block_0': {'bias': jnp.zeros((4, 4))}, 'kernel': jnp.zeros((4, 4))}, 'has none'),
        ({'block_0': {'conv': {'kernel': jnp.zeros((3, 3, 4, 4))}}}, 'block_0/conv/kernel is'),
        ({'blocks': {'kernel': jnp.zeros((4, 4))}}, r'blocks/kernel is \[4, 4\]'),
    ],
)
def test_networks_without_such_matrices_are_refused(params, message):
    with pytest.raises(InputError, match=rf'optim.model.name: muon .*{message}'):
        muon(field='optim.model').init(params)
