"""Drawing from PixelCNN++ with and without memory: what it saves to compute nothing twice.

    python benchmarks/pixelcnn_drawing.py [--rounds=3] [--only=8]

Without memory the whole network runs on the whole image for every pixel, which is what the paper's
own code does; with it, `methods/pixelcnn.py`, it runs on what is new. Both are one compiled loop
with the same weights and keys, take turns in one process, and must draw the same images, but for
float error. Weights are those at the start: they do not change the work.
"""

import argparse
import functools
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # for `configs`, which is no installed package

# (image size, channels of images, images at once, fields of the network)
CASES = (
    (8, 1, 100, {'channels': 32, 'num_blocks': 2, 'num_levels': 2, 'num_mixtures': 5}),
    (32, 3, 8, {'channels': 32, 'num_blocks': 2, 'num_levels': 3}),
)


def draw_without_memory(network, params, key, num: int, shape: tuple[int, ...], levels: int):
    """The same draws as `methods/pixelcnn.py`, from whole images at every pixel."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    from gen_jax.losses import logistic_mixture

    height, width, channels = shape

    def draw_pixel(i, x):
        row, column = i // width, i % width
        laws = network.apply({'params': params['model']}, x, train=False)
        law = lax.dynamic_slice(laws, (0, row, column, 0, 0), (num, 1, 1, *laws.shape[3:]))
        pixel_key = jax.random.fold_in(key, i)
        pixel = logistic_mixture.sample(pixel_key, law, channels=channels, levels=levels)
        return lax.dynamic_update_slice(x, pixel, (0, row, column, 0))

    return lax.fori_loop(0, height * width, draw_pixel, jnp.zeros((num, *shape)))


def contenders(size: int, channels: int, num: int, fields: dict) -> dict:
    """Functions that draw `num` images, by name, compiled."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from gen_jax import runtime
    from gen_jax.methods.pixelcnn import pixelcnn
    from gen_jax.networks.pixelcnn import PixelCNN
    from gen_jax.types import DataSpec

    spec = DataSpec((size, size, channels), levels=17 if channels == 1 else 256)
    made = []

    def factory(**given):
        made.append(PixelCNN(**fields, **given))
        return made[-1]

    method = pixelcnn({'model': factory}, spec)
    batch = {'x': jnp.zeros((1, *spec.shape))}
    params = nn.unbox(jax.jit(method.init)(jax.random.key(0), batch)[0])
    options = runtime.compiler_options(jax.default_backend())
    key, jit = jax.random.key(1), functools.partial(jax.jit, compiler_options=options)
    draws = {
        'without': jit(
            lambda p: draw_without_memory(made[0], p, key, num, spec.shape, spec.levels)
        ),
        'with': jit(lambda p: method.sample(p, {}, key, num)),
    }
    compiled = {name: draw.lower(params).compile() for name, draw in draws.items()}
    return {name: functools.partial(draw, params) for name, draw in compiled.items()}


def main() -> None:
    """Alternates, and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--only', type=int, help='images of this size alone')
    chosen = parser.parse_args()
    import numpy as np

    from gen_jax import runtime

    runtime.start()
    print(f'seconds, medians of {chosen.rounds}    without memory    with    ratio')
    for size, channels, num, fields in CASES:
        if chosen.only not in (None, size):
            continue
        draws = contenders(size, channels, num, fields)
        seconds = {name: [] for name in draws}
        for _ in range(chosen.rounds):
            images = []
            for name, draw in draws.items():
                started = time.perf_counter()
                images.append(np.asarray(draw()))
                seconds[name].append(time.perf_counter() - started)
            # Float error moves the odd number over the border between two levels.
            assert np.mean(images[0] == images[1]) > 0.99
        slow, fast = (statistics.median(times) for times in seconds.values())
        what = f'{num} of {size} x {size} x {channels}'
        print(f'{what:24}{slow:17.2f}{fast:8.3f}{slow / fast:9.1f}')


if __name__ == '__main__':
    main()
