"""Features of Inception-v3: those of FID (Heusel et al. 2017, arXiv:1706.08500), and others.

FID is defined by one network, Google's of 2015-12-05, and by what its graph does to pixels:

    (1) resize to 299 x 299: bilinear, source coordinate = target coordinate * size / 299
    (2) x = (pixel - 128) / 128
    (3) batch norm folded: kernel' = kernel g, bias' = beta - mean g, g = gamma (var + 0.001)^(-1/2)
    (4) p(y|x) = softmax(W f(x)) for the Inception Score, without the bias

(1) is TensorFlow 1's rule: no half-pixel centers, so that the image is shifted by up to half a
pixel, and no smoothing before shrinking. Better rules give other numbers, which do not compare with
published ones (Parmar et al. 2022). (4) goes over all 1008 outputs and leaves out the bias because
the published code of the Inception Score does (Salimans et al. 2016).

The weights are a file of the user's, .npz or .safetensors; its entries say which they are:

    conv/w, conv/b, mixed_tower_conv_1/w, ...   the graph, folded, up to mixed_7 or further: widths
                                                64, 192, 768. A distance is FID@768, never FID.
    Conv2d_1a_3x3.conv.weight, ...,             torchvision's names. With 1008 rows, the graph as
    Conv2d_1a_3x3.bn.running_var, ...,          pytorch-fid converted it: also width 2048, FID. With
    fc.weight, fc.bias                          1000, torchvision's own training: another network,
                                                and another measure, named by a hash of the weights.

Other entries (`AuxLogits`, `num_batches_tracked`) are left alone, and are no part of the hash.
"""

import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gen_jax.errors import InputError
from gen_jax.features.extractor import Extractor, hash_of
from gen_jax.networks.inception import SIZE, Inception
from gen_jax.types import Array, DataSpec, Tree

EPSILON = 1e-3  # of the batch norm in (3), in the graph and in torchvision alike
FID_CLASSES, TORCHVISION_CLASSES = 1008, 1000

# Where the names of the graph's layers are found in torchvision's.
STEM = {
    'conv': 'Conv2d_1a_3x3',
    'conv_1': 'Conv2d_2a_3x3',
    'conv_2': 'Conv2d_2b_3x3',
    'conv_3': 'Conv2d_3b_1x1',
    'conv_4': 'Conv2d_4a_3x3',
}
# block -> torchvision's block, its branches 'conv', 'tower' and 'tower_1'; 'tower_2' is the pool's.
BLOCKS = {
    'mixed': ('5b', 'branch1x1', 'branch5x5', 'branch3x3dbl'),
    'mixed_1': ('5c', 'branch1x1', 'branch5x5', 'branch3x3dbl'),
    'mixed_2': ('5d', 'branch1x1', 'branch5x5', 'branch3x3dbl'),
    'mixed_3': ('6a', 'branch3x3', 'branch3x3dbl', None),
    'mixed_4': ('6b', 'branch1x1', 'branch7x7', 'branch7x7dbl'),
    'mixed_5': ('6c', 'branch1x1', 'branch7x7', 'branch7x7dbl'),
    'mixed_6': ('6d', 'branch1x1', 'branch7x7', 'branch7x7dbl'),
    'mixed_7': ('6e', 'branch1x1', 'branch7x7', 'branch7x7dbl'),
    'mixed_8': ('7a', None, 'branch3x3', 'branch7x7x3'),
    'mixed_9': ('7b', 'branch1x1', 'branch3x3', 'branch3x3dbl'),
    'mixed_10': ('7c', 'branch1x1', 'branch3x3', 'branch3x3dbl'),
}


def inception(spec: DataSpec, *, weights: str | None = None, width: int | None = None) -> Extractor:
    """The extractor of a file of weights, for images of `spec`; gray ones are repeated to colors.

    `width` is how many features: 64, 192, 768 or 2048; None means the most that the weights give.
    Probabilities come with 2048.

    Raises:
      InputError: examples that are no images, a file that cannot be read as one of the layouts
        above, or a width that it does not have.
    """
    if len(spec.shape) != 3 or spec.shape[-1] not in (1, 3):
        raise InputError(
            f'spec: examples of shape {tuple(spec.shape)} are no images; '
            'Inception takes [height, width, 1 or 3]'
        )
    arrays = _read(weights)
    folded = 'conv/w' in arrays
    if not folded and 'Conv2d_1a_3x3.conv.weight' not in arrays:
        raise InputError(
            f"weights: {weights} holds neither 'conv/w' nor 'Conv2d_1a_3x3.conv.weight'; "
            "name the entries as pytorch-fid's file does"
        )
    classes = None if folded else _num_classes(arrays, weights)
    variant = 'torchvision' if classes == TORCHVISION_CLASSES else 'fid'
    widest = 768 if folded else 2048
    width = widest if width is None else width
    widths = (64, 192, 768) if folded else (64, 192, 768, 2048)
    if width not in widths:
        raise InputError(
            f'width: {weights} gives no {width} features; use one of {", ".join(map(str, widths))}'
        )
    params, digest = _load(arrays, Inception(variant, widest, classes), folded, weights)
    if variant == 'fid' and classes:
        params['softmax']['bias'] = np.zeros(classes, np.float32)  # (4)
    network = Inception(variant, width, classes)
    used = _shapes(network)
    suffix = '' if variant == 'fid' else f'-{digest[:8]}'
    suffix += '' if width == 2048 else f'@{width}'
    scaling = '(pixel - 128) / 128' if variant == 'fid' else 'pixel / 127.5 - 1'
    return Extractor(
        frechet=('FID' if variant == 'fid' else 'FD') + suffix,
        suffix=suffix,
        hash=digest,
        preprocessing=f"TensorFlow 1's bilinear resize to {SIZE} x {SIZE}, then {scaling}",
        weights={name: params[name] for name in used},
        embed=_embedding(network),
    )


def _embedding(network: Inception) -> Callable[[Tree, Array], tuple[Array, Array | None]]:
    """`embed` of an Extractor: its network behind its preprocessing."""

    def embed(weights: Tree, images: Array) -> tuple[Array, Array | None]:
        x = resize(images.astype(jnp.float32), SIZE, SIZE)
        # torchvision's weights are trained on pixels scaled to [-1, 1]: its network undoes the
        # ImageNet mean and deviation that its transforms bring (`transform_input`).
        x = (x - 128) / 128 if network.variant == 'fid' else x / 127.5 - 1
        x = jnp.broadcast_to(x, (*x.shape[:-1], 3))
        features, logits = network.apply({'params': weights}, x)
        return features, None if logits is None else jax.nn.softmax(logits)

    return embed


def resize(x: Array, height: int, width: int) -> Array:
    """Equation (1) for x `[B, H, W, C]`, to height x width: a matrix product for each axis."""
    rows, columns = _resize_matrix(x.shape[1], height), _resize_matrix(x.shape[2], width)
    x = jnp.einsum('qw,bhwc->bhqc', columns, x)
    return jnp.einsum('ph,bhqc->bpqc', rows, x)


def _resize_matrix(size: int, target: int) -> np.ndarray:
    """`[target, size]`: what each target pixel takes of each source pixel."""
    source = np.arange(target) * (size / target)
    low = np.floor(source).astype(int)
    high = np.minimum(low + 1, size - 1)
    matrix = np.zeros((target, size))
    np.add.at(matrix, (np.arange(target), low), 1 - (source - low))
    np.add.at(matrix, (np.arange(target), high), source - low)
    return matrix.astype(np.float32)


def torchvision_name(layer: str) -> str:
    """torchvision's name of a convolution of the graph: 'mixed_tower_conv' is 'branch5x5_1'."""
    if layer in STEM:
        return STEM[layer]
    pattern = r'(mixed(?:_\d+)?)_(?:(tower(?:_\d)?)_)?(mixed_)?conv(?:_(\d))?'
    block, tower, inner, index = re.fullmatch(pattern, layer).groups()
    place, outer, first, second = BLOCKS[block]
    number = int(index or 0)
    if tower is None:
        branch = outer
    elif tower == 'tower_2':
        branch = 'branch_pool'
    elif inner:  # the last step of a tower, which is two convolutions side by side
        branch = f'{first}_2' if tower == 'tower' else f'{second}_3'
        branch += 'ab'[number]
    else:
        branch = f'{first if tower == "tower" else second}_{number + 1}'
    return f'Mixed_{place}.{branch}'


def _read(weights: str | None) -> Mapping[str, np.ndarray]:
    """The arrays of a file by name."""
    if weights is None:
        raise InputError(
            'weights: none given; give the path of a .npz or .safetensors file of Inception-v3'
        )
    path = Path(weights).expanduser()
    if not path.is_file():
        raise InputError(f'weights: no file {weights}; give a .npz or .safetensors file')
    if path.suffix in ('.pth', '.pt'):
        raise InputError(
            f'weights: {weights} is a pickle; convert it once, with torch: python -c "'
            'import torch; from safetensors.torch import save_file; '
            f"save_file(torch.load('{weights}', weights_only=True), "
            f"'{path.with_suffix('.safetensors')}')\""
        )
    if path.suffix == '.npz':
        if not zipfile.is_zipfile(path):
            raise InputError(f'weights: {weights} is no .npz; write one with numpy.savez')
        try:
            with np.load(path) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(f'weights: {weights} cannot be read: {error}') from None
    if path.suffix == '.safetensors':
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise InputError(f'weights: {weights} cannot be read: {error}') from None
    raise InputError(f'weights: {weights} must be a .npz or .safetensors file')


def _num_classes(arrays: Mapping[str, np.ndarray], weights: str) -> int:
    rows = np.shape(_entry(arrays, 'fc.weight', weights))[0]
    if rows not in (FID_CLASSES, TORCHVISION_CLASSES):
        raise InputError(
            f"weights: {weights} has {rows} rows in 'fc.weight'; use the network of FID, which has "
            f"{FID_CLASSES}, or torchvision's, which has {TORCHVISION_CLASSES}"
        )
    return rows


def _load(
    arrays: Mapping[str, np.ndarray], network: Inception, folded: bool, weights: str
) -> tuple[Tree, str]:
    """The network's parameters, and a hash of the entries that they were made of."""
    params, read = {}, {}

    def entry(name: str, shape: tuple[int, ...]) -> np.ndarray:
        array = read[name] = _entry(arrays, name, weights)
        if array.shape != shape:
            raise InputError(
                f'weights: {name!r} in {weights} has shape {array.shape}; it must be {shape}'
            )
        return array.astype(np.float64)

    for layer, shapes in _shapes(network).items():
        shape, features = shapes['kernel'], shapes['bias']
        transposed = (*reversed(shape[-2:]), *shape[:-2])  # torch's: outputs, inputs, size
        if folded:
            kernel, bias = entry(f'{layer}/w', shape), entry(f'{layer}/b', features)
        elif layer == 'softmax':
            kernel, bias = entry('fc.weight', transposed).T, entry('fc.bias', features)
        else:
            name = torchvision_name(layer)
            kernel = entry(f'{name}.conv.weight', transposed).transpose(2, 3, 1, 0)
            gamma, beta, mean, variance = (
                entry(f'{name}.bn.{part}', features)
                for part in ('weight', 'bias', 'running_mean', 'running_var')
            )
            gain = gamma / np.sqrt(variance + EPSILON)  # (3)
            kernel, bias = kernel * gain, beta - mean * gain
        params[layer] = {
            'kernel': kernel.astype(np.float32),
            'bias': bias.astype(np.float32),
        }
    return params, hash_of(read)


def _entry(arrays: Mapping[str, np.ndarray], name: str, weights: str) -> np.ndarray:
    if name not in arrays:
        raise InputError(f'weights: {weights} has no entry {name!r}; give the complete network')
    return arrays[name]


def _shapes(network: Inception) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of the network's parameters, layer by layer."""
    x = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: leaf.shape, variables['params'])
