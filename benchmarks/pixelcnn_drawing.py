"""Drawing from PixelCNN++ with and without memory: what it saves to compute nothing twice.

    python benchmarks/pixelcnn_drawing.py [--rounds=3]

Without memory the whole network runs on the whole image for every pixel, which is what the paper's
own code does; with it, `methods/pixelcnn.py`, it runs on what is new. Both are one compiled loop
with the same weights and keys, take turns in one process, and must draw the same images. Weights
are those at the start: they do not change the work.
"""

import argparse
import functools
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # for `configs`, which is no installed package

# (title, image size, channels of images, images at once, fields of the network)
CASES = (
    ('digits', 8, 1, 100, {'channels': 32, 'num_blocks': 2, 'num_levels': 2}),
    ('small, color', 32, 3, 16, {'channels': 32, 'num_blocks': 2, 'num_levels': 3}),
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
    with_memory = jit(lambda p: method.sample(p, {}, key, num))
    without = jit(lambda p: draw_without_memory(made[0], p, key, num, spec.shape, spec.levels))
    return {
        'without memory': functools.partial(without, params),
        'with memory': functools.partial(with_memory, params),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=3)
    rounds = parser.parse_args().rounds
    import jax
    import numpy as np

    from gen_jax import runtime

    runtime.start()
    print(f'{"":14}{"without":>10}{"with memory":>13}{"ratio":>8}   seconds, medians of {rounds}')
    for title, size, channels, num, fields in CASES:
        draws = contenders(size, channels, num, fields)
        images = [np.asarray(draw()) for draw in draws.values()]  # compiles
        np.testing.assert_array_equal(*images)
        seconds = {name: [] for name in draws}
        for _ in range(rounds):
            for name, draw in draws.items():
                started = time.perf_counter()
                jax.block_until_ready(draw())
                seconds[name].append(time.perf_counter() - started)
        slow, fast = (statistics.median(seconds[name]) for name in draws)
        what = f'{title}, {num} x {size}x{size}'
        print(f'{what}\n{"":14}{slow:10.3f}{fast:13.3f}{slow / fast:8.1f}')


if __name__ == '__main__':
    main()
