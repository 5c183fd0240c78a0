"""Features of a classifier trained here, from one file of weights: see `export.py`.

Scores on them carry the first 8 digits of a hash of the weights, `FD-1a2b3c4d`: another training,
even of the same config on another machine, may differ in its last bits, and is then another score.
That is why the net of the embedded digits ships with the package.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gen_jax import build
from gen_jax.errors import InputError
from gen_jax.features.extractor import Extractor, hash_of
from gen_jax.types import Array, DataSpec, Tree

SHIPPED = ('digits',)


def feature_net(spec: DataSpec, *, weights: str | None = None) -> Extractor:
    """The features of a classifier that `--mode=export` wrote to a file.

    Args:
      spec: of the examples; the classifier must have been trained on their shape.
      weights: the file, `.safetensors`, or 'digits' for the net that ships with the package.

    Raises:
      InputError: no such file, or one of something else.
    """
    if weights is None:
        raise InputError(
            "weights: None; give 'digits', or a file that --mode=export of a feature_net wrote"
        )
    path = Path(weights).expanduser()
    if weights in SHIPPED:
        path = Path(__file__).with_name(f'{weights}.safetensors')
    arrays, facts = read(path)
    if facts['method'] != 'classifier.classifier':
        raise InputError(f'weights: {path} is of {facts["method"]!r}, and no classifier')
    shape = tuple(facts['shape'])
    if shape != spec.shape:
        raise InputError(
            f'weights: {path} was trained on examples of shape {shape}, and these have '
            f'{spec.shape}; train a feature net on this data'
        )
    # In float32, whatever it was trained in: a score must not depend on that.
    factory = build.network_factory(facts['network'] or {}, 'weights: networks.model')
    network = factory(num_classes=facts['num_classes'])
    params = _nested(arrays, 'model/')
    _check_leaves(network, params, spec, path)

    def embed(params: Tree, images: Array) -> tuple[Array, Array]:
        x = images.astype(jnp.float32) / 127.5 - 1
        features, logits = network.apply({'params': params}, x, train=False)
        return features, jax.nn.softmax(logits)

    # The network is part of it: the same arrays mean something else in another one.
    digest = hash_of(arrays, json.dumps(facts['network'], sort_keys=True))
    suffix = f'-{digest[:8]}'
    return Extractor(f'FD{suffix}', suffix, digest, 'pixel / 127.5 - 1', params, embed)


def read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays of a file of weights, and what it says of itself.

    Raises:
      InputError: no such file, or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(
            f'weights: there is no file {path}; --mode=export of a feature_net config writes one'
        )
    try:
        with safe_open(path, framework='numpy') as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = json.loads((file.metadata() or {})['gen_jax'])
        facts = {name: facts[name] for name in ('method', 'networks', 'shape', 'num_classes')}
        facts['network'] = facts['networks'].get('model')
    except (SafetensorError, OSError, AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f'weights: {path} is no file that --mode=export wrote') from None
    return arrays, facts


def _nested(arrays: dict[str, np.ndarray], prefix: str) -> Tree:
    """`{'model/conv/kernel': a}` as `{'conv': {'kernel': a}}`."""
    tree = {}
    for name, array in arrays.items():
        *folders, leaf = name.removeprefix(prefix).split('/')
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[leaf] = array
    return tree


def _check_leaves(network, params: Tree, spec: DataSpec, path: Path) -> None:
    x = jax.ShapeDtypeStruct((1, *spec.shape), jnp.float32)
    wanted = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False)['params'], x)
    shapes = [jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (wanted, params)]
    if shapes[0] != shapes[1]:
        raise InputError(f'weights: {path} does not hold the network that it names; export anew')
