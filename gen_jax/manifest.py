"""What a checkpoint says of itself: the shape, type and digest of every leaf.

A digest depends on the leaf's bits and on nothing else: not on the devices it is split over, nor on
the files that hold it. With the bits b_i of element i as one or two 32-bit words and a bijection
`scramble` of such words,

    (1) digest = sum_i scramble(b_i + scramble(i + c))   modulo 2^32, for two constants c

Whatever the order of the sum, it is the same; and changing one word always changes it. It is
computed where the leaf lies: of an array on devices by all of them, so a state that fits on no
single one has one too; of a NumPy array by NumPy alone, so a thread may do that beside training.
(XLA's CPU devices wait forever for each other when two threads give them work.) It finds damage and
tells states apart; it is no protection against someone who wants to forge one.
"""

import functools
import json
import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gen_jax.errors import InputError
from gen_jax.keys import scramble
from gen_jax.types import Array, Tree

Manifest = Mapping[str, dict]

_CONSTANTS = (0x243F6A88, 0x85A308D3)  # the first digits of pi: nothing up our sleeve
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint32}
_PART = 2**17  # words that stay in a processor's cache


def describe(tree: Tree) -> Manifest:
    """`{'params/model/conv/kernel': {'dtype', 'shape', 'digest'}, ...}` of a tree of arrays."""
    leaves = leaves_of(tree)
    digests = []
    for leaf in leaves.values():
        digest = _digest_on_host(leaf) if isinstance(leaf, np.ndarray) else _digest(leaf)
        # Devices wait for each other in such a program, and several of them at once can block.
        digests.append(jax.device_get(digest))
    return {
        path: {**_kind(leaf), 'digest': '{:08x}{:08x}'.format(*digest)}
        for (path, leaf), digest in zip(leaves.items(), digests, strict=True)
    }


def leaves_of(tree: Tree) -> dict[str, Array]:
    """Every leaf by its path; random keys as the integers they consist of."""

    def plain(leaf):
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.eval_shape(jax.random.key_data, leaf)
        return np.asarray(jax.random.key_data(leaf))

    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator='/'): plain(leaf) for path, leaf in flat
    }


def seal(manifest: Manifest) -> dict:
    """The manifest with a checksum of itself, as it is stored."""
    return {'checksum': _checksum(manifest), 'leaves': dict(manifest)}


def unseal(stored: Mapping) -> Manifest:
    """The manifest of what `seal` made.

    Raises:
      ValueError: it is damaged.
    """
    manifest = stored['leaves']
    if stored['checksum'] != _checksum(manifest):
        raise ValueError('its manifest does not match its own checksum')
    return manifest


def check_same_leaves(manifest: Manifest, template: Tree, step: int) -> None:
    """Raises InputError naming the first leaf whose presence, shape or type differs.

    Restoring would otherwise cast a wrong type without a word.
    """
    wanted = {path: _kind(leaf) for path, leaf in leaves_of(template).items()}
    for path in sorted(manifest.keys() | wanted.keys()):
        saved = manifest.get(path)
        if saved is None or path not in wanted or _shown(saved) != _shown(wanted[path]):
            raise InputError(
                f'--workdir: checkpoint {step} is of another model: {path} is '
                f'{_shown(saved)} there and {_shown(wanted.get(path))} by the config'
            )


def check_content(manifest: Manifest, tree: Tree) -> None:
    """Raises ValueError naming the first leaf whose bits are not those that were saved."""
    for path, leaf in describe(tree).items():
        if leaf['digest'] != manifest[path]['digest']:
            raise ValueError(f'{path} does not match its checksum')


def _kind(leaf) -> dict:
    return {'dtype': np.dtype(leaf.dtype).name, 'shape': list(leaf.shape)}


def _shown(leaf: Mapping | None) -> str:
    return 'absent' if leaf is None else f'{leaf["dtype"]}{leaf["shape"]}'


def _checksum(manifest: Manifest) -> int:
    return zlib.crc32(json.dumps(dict(manifest), sort_keys=True).encode())


@jax.jit
def _digest(leaf: Array) -> Array:
    """Equation (1), uint32 `[2]`."""
    words = _words(leaf)
    index = functools.reduce(
        lambda total, axis: (
            total * jnp.uint32(words.shape[axis])
            + lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        ),
        range(words.ndim),
        jnp.uint32(0),
    )
    return jnp.stack(_sums(words, index))


def _digest_on_host(leaf: np.ndarray) -> np.ndarray:
    """The same of an array in this process's memory, a part after the other."""
    words = np.ascontiguousarray(leaf).reshape(-1).view(_UNSIGNED[leaf.dtype.itemsize])
    total = np.zeros(2, np.uint32)
    for start in range(0, words.size, _PART):
        part = words[start : start + _PART].astype(np.uint32)
        total += np.stack(_sums(part, np.arange(start, start + part.size).astype(np.uint32)))
    return total


def _sums(words, index) -> list:
    """Equation (1) for each constant, of words and their positions."""
    scrambled = [scramble(words + scramble(index + np.uint32(c))) for c in _CONSTANTS]
    # Of this type also where JAX or NumPy would sum in 64 bits.
    return [terms.sum(dtype=np.uint32) for terms in scrambled]


def _words(leaf: Array) -> Array:
    """The leaf's bits as uint32, in its own shape or with one more axis of two."""
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    words = lax.bitcast_convert_type(leaf, _UNSIGNED[leaf.dtype.itemsize])
    return words.astype(jnp.uint32)
