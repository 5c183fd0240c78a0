"""Inception under torchvision's names equals torch: folding, names, variants, scaling, softmax."""

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from gen_jax.features.extractor import hash_of
from gen_jax.features.inception import inception, resize
from gen_jax.types import DataSpec

torch = pytest.importorskip('torch')

SPEC = DataSpec((20, 24, 3))
PIXELS = np.random.default_rng(0).integers(0, 256, (2, *SPEC.shape), np.uint8)


class TorchTwin:
    """Inception-v3 in torch, as pytorch-fid and torchvision write it, under torchvision's names.

    `state` grows by random weights, and by random statistics of batch norms, as layers ask for
    them on the first call.
    """

    def __init__(self, fid: bool):
        self.fid, self.state = fid, {}
        self.generator = torch.Generator().manual_seed(0)

    def random(self, name: str, *shape: int, low: float = -0.2, high: float = 0.2):
        if name not in self.state:
            uniform = torch.rand(shape, generator=self.generator)
            self.state[name] = low + (high - low) * uniform
        return self.state[name]

    def conv(self, x, name: str, features: int, size=(1, 1), stride: int = 1, same: bool = True):
        functional = torch.nn.functional
        scale = (6 / (x.shape[1] * size[0] * size[1])) ** 0.5
        shape = (features, x.shape[1], *size)
        kernel = self.random(f'{name}.conv.weight', *shape, low=-scale, high=scale)
        padding = (size[0] // 2, size[1] // 2) if same else 0
        x = functional.conv2d(x, kernel, None, stride, padding)
        mean = self.random(f'{name}.bn.running_mean', features)
        variance = self.random(f'{name}.bn.running_var', features, low=0.5, high=2)
        gamma = self.random(f'{name}.bn.weight', features, low=0.5, high=1.5)
        beta = self.random(f'{name}.bn.bias', features)
        return functional.batch_norm(x, mean, variance, gamma, beta, eps=0.001).relu()

    def average(self, x):
        pool = torch.nn.functional.avg_pool2d
        return pool(x, 3, 1, 1, count_include_pad=not self.fid)

    def halve(self, x):
        return torch.nn.functional.max_pool2d(x, 3, 2)

    def tower(self, x, name: str, *layers):
        """Convolutions `name`_1, `name`_2, ..., each of (features, size, stride, same)."""
        for number, layer in enumerate(layers, 1):
            x = self.conv(x, f'{name}_{number}', *layer)
        return x

    def block_5(self, x, name: str, pooled: int):
        branches = [
            self.conv(x, f'{name}.branch1x1', 64),
            self.tower(x, f'{name}.branch5x5', (48,), (64, (5, 5))),
            self.tower(x, f'{name}.branch3x3dbl', (64,), (96, (3, 3)), (96, (3, 3))),
            self.conv(self.average(x), f'{name}.branch_pool', pooled),
        ]
        return torch.cat(branches, 1)

    def block_6a(self, x):
        double = (64,), (96, (3, 3)), (96, (3, 3), 2, False)
        branches = [
            self.conv(x, 'Mixed_6a.branch3x3', 384, (3, 3), 2, False),
            self.tower(x, 'Mixed_6a.branch3x3dbl', *double),
            self.halve(x),
        ]
        return torch.cat(branches, 1)

    def block_6(self, x, name: str, n: int):
        row, column = (1, 7), (7, 1)
        double = (n,), (n, column), (n, row), (n, column), (192, row)
        branches = [
            self.conv(x, f'{name}.branch1x1', 192),
            self.tower(x, f'{name}.branch7x7', (n,), (n, row), (192, column)),
            self.tower(x, f'{name}.branch7x7dbl', *double),
            self.conv(self.average(x), f'{name}.branch_pool', 192),
        ]
        return torch.cat(branches, 1)

    def block_7a(self, x):
        seven = (192,), (192, (1, 7)), (192, (7, 1)), (192, (3, 3), 2, False)
        branches = [
            self.tower(x, 'Mixed_7a.branch3x3', (192,), (320, (3, 3), 2, False)),
            self.tower(x, 'Mixed_7a.branch7x7x3', *seven),
            self.halve(x),
        ]
        return torch.cat(branches, 1)

    def block_7(self, x, name: str, pool):
        three = self.tower(x, f'{name}.branch3x3', (384,))
        double = self.tower(x, f'{name}.branch3x3dbl', (448,), (384, (3, 3)))
        branches = [
            self.conv(x, f'{name}.branch1x1', 320),
            self.conv(three, f'{name}.branch3x3_2a', 384, (1, 3)),
            self.conv(three, f'{name}.branch3x3_2b', 384, (3, 1)),
            self.conv(double, f'{name}.branch3x3dbl_3a', 384, (1, 3)),
            self.conv(double, f'{name}.branch3x3dbl_3b', 384, (3, 1)),
            self.conv(pool(x), f'{name}.branch_pool', 192),
        ]
        return torch.cat(branches, 1)

    def __call__(self, x, classes: int):
        """Features `[B, 2048]`, and products with the last weights `[B, classes]`, no bias."""
        x = self.conv(x, 'Conv2d_1a_3x3', 32, (3, 3), 2, False)
        x = self.conv(x, 'Conv2d_2a_3x3', 32, (3, 3), 1, False)
        x = self.halve(self.conv(x, 'Conv2d_2b_3x3', 64, (3, 3)))
        x = self.conv(x, 'Conv2d_3b_1x1', 80)
        x = self.halve(self.conv(x, 'Conv2d_4a_3x3', 192, (3, 3), 1, False))
        for name, pooled in (('5b', 32), ('5c', 64), ('5d', 64)):
            x = self.block_5(x, f'Mixed_{name}', pooled)
        x = self.block_6a(x)
        for name, features in (('6b', 128), ('6c', 160), ('6d', 160), ('6e', 192)):
            x = self.block_6(x, f'Mixed_{name}', features)
        x = self.block_7(self.block_7a(x), 'Mixed_7b', self.average)

        def maximum(x):
            return torch.nn.functional.max_pool2d(x, 3, 1, 1)

        features = self.block_7(x, 'Mixed_7c', maximum if self.fid else self.average).mean((2, 3))
        self.random('fc.bias', classes, low=-1, high=1)
        return features, features @ self.random('fc.weight', classes, 2048).T


def resized():
    """PIXELS at 299 x 299, `[B, C, H, W]` of torch."""
    return torch.from_numpy(np.array(resize(PIXELS.astype(np.float32), 299, 299))).permute(
        0, 3, 1, 2
    )


def assert_close(ours, theirs):
    """Within 1e-4 of the largest number, and not all alike."""
    assert ours.shape == theirs.shape and np.std(theirs) > 0
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


def write(state: dict, path: Path) -> str:
    """Writes a torch state with entries that loading must leave alone."""
    arrays = {name: np.ascontiguousarray(value.numpy()) for name, value in state.items()}
    arrays |= {'AuxLogits.fc.weight': np.zeros((5, 768), np.float32)}
    arrays |= {'Conv2d_1a_3x3.bn.num_batches_tracked': np.int64(7)[None]}
    np.savez(path, **arrays) if path.suffix == '.npz' else save_file(arrays, path)
    return str(path)


@pytest.mark.parametrize('suffix', ['npz', 'safetensors'])
@pytest.mark.parametrize(('classes', 'fid'), [(1008, True), (1000, False)])
def test_torch_layout_equals_torch(classes, fid, suffix, tmp_path):
    twin = TorchTwin(fid)
    x = (resized() - 128) / 128 if fid else resized() / 127.5 - 1
    with torch.inference_mode():
        expected, products = twin(x, classes)
    logits = products if fid else products + twin.state['fc.bias']
    path = write(twin.state, tmp_path / f'w.{suffix}')
    extractor = inception(SPEC, weights=path)
    small = inception(SPEC, weights=path, width=768)
    Path(path).unlink()

    features, probabilities = jax.jit(extractor.embed)(extractor.weights, PIXELS)
    assert_close(features, expected.numpy())
    assert_close(probabilities, logits.softmax(-1).numpy())
    assert extractor.hash == small.hash == hash_of({k: v.numpy() for k, v in twin.state.items()})
    short = extractor.hash[:8]
    names = ('FID', '') if fid else (f'FD-{short}', f'-{short}')
    assert (extractor.frechet, extractor.suffix) == names
    assert (small.frechet, small.suffix) == tuple(f'{name}@768' for name in names)
    assert len(small.weights) == 70 and len(extractor.weights) == 95


def test_torchvision_itself_gives_the_same(tmp_path):
    """With its transforms' normalization, which its network then undoes."""
    try:
        torchvision = pytest.importorskip('torchvision')
    except RuntimeError as error:
        pytest.skip(f'torchvision is built for another torch: {error}')
    torch.manual_seed(0)
    network = torchvision.models.inception_v3(init_weights=False, transform_input=True).eval()
    twin = TorchTwin(fid=False)
    with torch.inference_mode():
        twin(torch.zeros(1, 3, 299, 299), 1000)
    state = network.state_dict()
    rest = {name for name in state if name.startswith('AuxLogits') or name.endswith('_tracked')}
    assert set(state) - rest == set(twin.state)
    network.load_state_dict(twin.state, strict=False)

    x = resized() / 255
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    x = torchvision.transforms.functional.normalize(x, mean, deviation)
    with torch.inference_mode():
        expected = network(x).softmax(-1)
    path = write(network.state_dict(), tmp_path / 'w.npz')
    extractor = inception(SPEC, weights=path)
    Path(path).unlink()
    _, probabilities = jax.jit(extractor.embed)(extractor.weights, PIXELS)
    assert_close(probabilities, expected.numpy())
