"""Streams of keys: one for each purpose, and no two that meet."""

import importlib

import jax
import numpy as np

from gen_jax import evaluate, keys, run, sample


def data(key) -> tuple[int, ...]:
    return tuple(jax.random.key_data(key).tolist())


def test_streams_of_purposes_and_seeds_differ_and_so_do_their_children():
    streams = [keys.stream(seed, purpose) for seed in (0, 1) for purpose in keys.PURPOSES]
    children = [jax.random.fold_in(key, n) for key in streams for n in range(5)]
    assert len({data(key) for key in streams + children}) == len(streams + children)


def test_every_use_draws_from_its_own_stream_and_previews_from_the_same_noise(
    monkeypatch, tmp_path
):
    asked = []
    real = keys.stream
    monkeypatch.setattr(keys, 'stream', lambda seed, to: asked.append(to) or real(seed, to))
    config = importlib.import_module('configs.ddpm_digits').get_config('smoke')
    built = run.assemble(config)
    assert sorted(set(asked)) == ['init', 'train']
    state = run.initialize(built, config.seed)
    assert data(state.key) == data(real(config.seed, 'train'))

    asked.clear()
    (tmp_path / 'samples').mkdir()
    preview = sample.make_preview(built, config, tmp_path)
    assert asked == ['preview']
    asked.clear()
    moved = state.replace(ema_params=jax.tree.map(lambda leaf: leaf + 0.1, state.ema_params))
    for step, model in ((3, state), (5, state), (7, moved)):
        preview(step, model)
    pictures = [(tmp_path / 'samples' / f'step_{step:08}.png').read_bytes() for step in (3, 5, 7)]
    assert pictures[0] == pictures[1] != pictures[2] and asked == []
    asked.clear()
    config.evaluate.num_batches = 1
    split = run.load_data(config).evaluation
    first, again = (evaluate.make_evaluation(built, config)(state, split) for _ in range(2))
    assert asked == ['evaluate'] * 2
    np.testing.assert_array_equal(first['loss'], again['loss'])
