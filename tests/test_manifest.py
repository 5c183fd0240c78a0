"""Digests: of the bits and of nothing else, and different for different bits.

The oracle is equation (1) of `manifest.py` written once more, in plain Python integers.
"""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from gen_jax import manifest, parallel
from gen_jax.errors import InputError

RNG = np.random.default_rng(0)
SHAPE = (6, 5)
LEAVES = {
    'float32': RNG.normal(size=SHAPE).astype(np.float32),
    'float16': RNG.normal(size=SHAPE).astype(np.float16),
    'bfloat16': RNG.normal(size=SHAPE).astype(ml_dtypes.bfloat16),
    'int32': RNG.integers(-(2**31), 2**31, SHAPE).astype(np.int32),
    'uint8': RNG.integers(0, 256, SHAPE).astype(np.uint8),
    'bool': RNG.integers(0, 2, SHAPE).astype(bool),
    'zeros': np.zeros(SHAPE, np.float32),
    'one_axis': RNG.normal(size=37).astype(np.float32),
    'four_axes': RNG.normal(size=(2, 3, 4, 5)).astype(np.float32),
    'scalar': np.float32(0.1),
    'step': np.int32(1234),
    'key': np.asarray(jax.random.key_data(jax.random.key(5))),
}


def digest_of(leaf, is_key: bool = False) -> str:
    """What `describe` says of one leaf."""
    leaf = jnp.asarray(leaf)
    leaf = jax.random.wrap_key_data(leaf) if is_key else leaf
    return manifest.describe({'leaf': leaf})['leaf']['digest']


def scramble(x: int) -> int:
    """Wellons 2018, 'lowbias32'."""
    x = (x ^ (x >> 16)) * 0x7FEB352D & 0xFFFFFFFF
    x = (x ^ (x >> 15)) * 0x846CA68B & 0xFFFFFFFF
    return x ^ (x >> 16)


def plain_digest(leaf: np.ndarray) -> str:
    """Equation (1), one word after the other in C order."""
    leaf = np.ascontiguousarray(leaf)
    words = leaf.reshape(-1).view({1: '<u1', 2: '<u2', 4: '<u4', 8: '<u4'}[leaf.dtype.itemsize])
    sums = [
        sum(scramble((int(b) + scramble((i + c) % 2**32)) % 2**32) for i, b in enumerate(words))
        for c in (0x243F6A88, 0x85A308D3)
    ]
    return ''.join(f'{total % 2**32:08x}' for total in sums)


@pytest.mark.parametrize('name', LEAVES)
def test_the_digest_is_equation_1(name):
    assert digest_of(LEAVES[name], name == 'key') == plain_digest(LEAVES[name])


def test_a_host_array_has_the_same_digest_and_asks_no_device(monkeypatch):
    """More words than one part of it has, too; a thread describes what it saves while others
    compute, and two threads that give a CPU's devices work can block them for good."""
    large = RNG.normal(size=(3, 7, 2**15 - 3)).astype(np.float32)
    leaves = {**LEAVES, 'large': large, 'strided': large[:, ::2, ::-1]}
    on_device = manifest.describe({name: jnp.asarray(leaf) for name, leaf in leaves.items()})

    def refuse(leaf):
        raise AssertionError('a device was asked')

    monkeypatch.setattr(manifest, '_digest', refuse)
    keys = {'a random key': jax.random.key(5)}
    on_host = manifest.describe({name: np.asarray(leaf) for name, leaf in leaves.items()} | keys)
    assert on_host.pop('a random key') == on_device['key']
    assert on_host == on_device


@pytest.mark.parametrize('name', LEAVES)
def test_every_single_bit_counts(name):
    """All the bits of some random elements, and of the first and the last."""
    leaf = LEAVES[name]
    width = 1 if leaf.dtype == bool else 8 * leaf.dtype.itemsize
    rng, found = np.random.default_rng(1), {digest_of(leaf, name == 'key')}
    positions = {0, leaf.size - 1, *rng.integers(leaf.size, size=2).tolist()}
    for position in positions:
        for bit in range(width):
            changed = np.array(leaf, ndmin=1).reshape(-1)
            raw = changed.view(f'<u{leaf.dtype.itemsize}')
            raw[position] ^= np.array(1 << bit, raw.dtype)
            found.add(digest_of(changed.reshape(leaf.shape), name == 'key'))
    assert len(found) == 1 + width * len(positions)


def test_a_double_is_two_words():
    with jax.enable_x64(True):
        leaf = np.random.default_rng(0).normal(size=7)
        found = {digest_of(leaf)}
        assert found == {plain_digest(leaf)}
        for bit in range(64):
            changed = leaf.copy()
            changed.view('<u8')[3] ^= np.uint64(1 << bit)
            found.add(digest_of(changed))
        assert len(found) == 65


def test_a_key_is_the_integers_it_consists_of():
    keys = jax.random.split(jax.random.key(0), 4)
    described = manifest.describe({'key': keys})['key']
    assert described['dtype'] == 'uint32' and described['shape'] == [4, 2]
    assert described['digest'] == plain_digest(np.asarray(jax.random.key_data(keys)))


@pytest.mark.parametrize('dtype', [np.float32, np.float16, ml_dtypes.bfloat16])
def test_the_sign_of_zero_and_the_bits_of_nan_count(dtype):
    plus, minus = np.zeros(8, dtype), np.zeros(8, dtype)
    minus[3] = -0.0
    assert np.array_equal(plus, minus) and digest_of(plus) != digest_of(minus)
    nan = np.full(8, np.nan, dtype)
    other = nan.copy()
    other.view(f'<u{nan.dtype.itemsize}')[5] ^= 1
    assert np.isnan(other.astype(np.float32)).all() and digest_of(nan) != digest_of(other)
    assert digest_of(nan) == digest_of(nan.copy())


def test_numbers_too_small_for_fast_arithmetic_count():
    tiny = np.full(8, 1e-42, np.float32)
    assert digest_of(tiny) != digest_of(np.zeros(8, np.float32))
    assert digest_of(tiny) == plain_digest(tiny)


@pytest.mark.parametrize('name', [name for name, leaf in LEAVES.items() if leaf.ndim > 1])
def test_places_count(name):
    """Two elements, two rows or two columns that change places; another shape of the same bits."""
    leaf = LEAVES[name]
    if name == 'zeros':
        leaf = leaf.copy()
        leaf[0] = 1
    rows, columns, elements = leaf.copy(), leaf.copy(), leaf.copy()
    rows[[0, 1]] = leaf[[1, 0]]
    columns[:, [0, 1]] = leaf[:, [1, 0]]
    flat = elements.reshape(-1)
    other = next(i for i in range(1, flat.size) if flat[i] != flat[0])
    flat[[0, other]] = flat[[other, 0]]
    found = [digest_of(leaf), digest_of(rows), digest_of(elements)]
    assert len(set(found)) == 3
    if not np.array_equal(columns, leaf):
        assert digest_of(columns) not in found
    assert digest_of(leaf.T) != found[0]


def test_names_count():
    one, two = jnp.arange(4.0), jnp.arange(4.0) + 1
    there = manifest.describe({'a': one, 'b': {'c': two}})
    swapped = manifest.describe({'a': two, 'b': {'c': one}})
    assert set(there) == set(swapped) == {'a', 'b/c'}
    assert manifest.seal(there) != manifest.seal(swapped)
    manifest.check_content(there, {'a': one, 'b': {'c': two}})
    with pytest.raises(ValueError, match=r'^a does not match'):
        manifest.check_content(there, {'a': two, 'b': {'c': one}})


@pytest.mark.parametrize('dtype', [np.float32, ml_dtypes.bfloat16, np.int32, np.uint8, bool])
def test_places_on_devices_do_not_count(dtype):
    layout = parallel.lay_out(data=2, fsdp=2, tensor=2)
    leaf = (100 * np.random.default_rng(0).normal(size=(16, 24))).astype(dtype)
    specs = [(), ('fsdp',), ('tensor',), (None, 'fsdp'), ('fsdp', 'tensor'), ('tensor', 'fsdp')]
    specs += [(('data', 'fsdp'),), (('data', 'fsdp', 'tensor'),), (None, ('tensor', 'data'))]
    placed = [
        jax.device_put(leaf, NamedSharding(layout.mesh, PartitionSpec(*spec))) for spec in specs
    ]
    assert len({array.sharding.shard_shape(array.shape) for array in placed}) > 5
    assert {digest_of(array) for array in placed} == {plain_digest(leaf)}
    damaged = leaf.copy()
    damaged.view(f'<u{leaf.dtype.itemsize}')[15, 23] ^= 1  # on the last device alone
    split = jax.device_put(damaged, placed[4].sharding)
    assert digest_of(split) == plain_digest(damaged) != plain_digest(leaf)


def test_what_is_sealed_comes_back_and_a_changed_entry_is_found():
    described = manifest.describe({'w': jnp.arange(6.0).reshape(2, 3), 'n': jnp.int32(3)})
    stored = json.loads(json.dumps(manifest.seal(described)))
    assert manifest.unseal(stored) == described
    changes = [
        ('w', 'digest', '0' * 16),
        ('w', 'shape', [3, 2]),
        ('n', 'dtype', 'int64'),
    ]
    for path, field, value in changes:
        stored = json.loads(json.dumps(manifest.seal(described)))
        assert stored['leaves'][path][field] != value
        stored['leaves'][path][field] = value
        with pytest.raises(ValueError, match='its own checksum'):
            manifest.unseal(stored)
    for change in (lambda leaves: leaves.pop('n'), lambda leaves: leaves.update(x=leaves['n'])):
        stored = json.loads(json.dumps(manifest.seal(described)))
        change(stored['leaves'])
        with pytest.raises(ValueError, match='its own checksum'):
            manifest.unseal(stored)


def test_a_leaf_too_many_or_too_few_is_named():
    template = {'a': jnp.zeros(3), 'b': jnp.zeros(2)}
    described = manifest.describe(template)
    manifest.check_same_leaves(described, template, 1)
    with pytest.raises(InputError, match=r'b is float32\[2\] there and absent by the config'):
        manifest.check_same_leaves(described, {'a': template['a']}, 1)
    with pytest.raises(InputError, match=r'c is absent there and float32\[3\] by the config'):
        manifest.check_same_leaves(described, {**template, 'c': template['a']}, 1)
