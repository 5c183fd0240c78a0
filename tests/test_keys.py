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


def test_every_use_draws_from_its_own_stream(monkeypatch, tmp_path):
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
    sample.make_preview(built, config, tmp_path)(3, state)
    assert asked == ['preview']
    asked.clear()
    config.evaluate.num_batches = 1
    split = run.load_data(config).evaluation
    first, again = (evaluate.make_evaluation(built, config)(state, split) for _ in range(2))
    assert asked == ['evaluate'] * 2
    np.testing.assert_array_equal(first['loss'], again['loss'])
