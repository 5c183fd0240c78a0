"""Real examples beside their features: read as they are, and computed once."""

import jax.numpy as jnp
import numpy as np
import pytest

from gen_jax import parallel
from gen_jax.data import images
from gen_jax.features.extractor import Extractor, make_embedder
from gen_jax.features.references import references


def extractor_of(scale: float, name: str) -> Extractor:
    def embed(weights, x):
        return weights * x.reshape(len(x), -1).astype(jnp.float32), None

    return Extractor(f'FD-{name}', f'-{name}', name, 'none', jnp.float32(scale), embed)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('GEN_JAX_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def found(extractor, embed=None, split='train', num=50, dequantize=False, fingerprint=None):
    dataset = images.load(dequantize=dequantize)
    if fingerprint is not None:
        dataset = dataset._replace(fingerprint=fingerprint)
    embed = embed or make_embedder(extractor, parallel.lay_out(), 20)
    return references(dataset, split, num, images.decode, extractor, embed)


def test_examples_are_spread_over_the_split_and_are_the_pixels_of_the_data(cache):
    dataset = images.load(flip=True)
    numbers = np.linspace(0, 1499, 50).round().astype(int)
    raw = dataset.train.fetch(numbers)['image']
    for dequantize in (False, True):
        examples = found(extractor_of(1.0, 'a'), dequantize=dequantize).examples
        np.testing.assert_array_equal(examples, np.rint(raw * 255.0 / 16).astype(np.uint8))
    assert found(extractor_of(1.0, 'a'), split='evaluation', num=None).num == 297


def test_features_are_computed_once(cache):
    first = found(extractor_of(2.0, 'a'))
    np.testing.assert_allclose(first.features, 2.0 * first.examples.reshape(50, -1))

    def never(examples):
        raise AssertionError('computed again')

    again = found(extractor_of(2.0, 'a'), embed=never)
    np.testing.assert_array_equal(again.features, first.features)
    # Whatever would change them is another file.
    for change in ({'split': 'evaluation'}, {'num': 51}):
        with pytest.raises(AssertionError, match='again'):
            found(extractor_of(2.0, 'a'), embed=never, **change)
    for other in (
        extractor_of(2.0, 'b'),
        extractor_of(2.0, 'a')._replace(preprocessing='another'),
        extractor_of(2.0, 'a')._replace(hash='another'),
    ):
        with pytest.raises(AssertionError, match='again'):
            found(other, embed=never)
    with pytest.raises(AssertionError, match='again'):
        found(extractor_of(2.0, 'a'), embed=never, fingerprint='another')


def test_a_long_computation_goes_on_where_it_was_cut_short(cache, monkeypatch):
    monkeypatch.setattr('gen_jax.features.references._KEPT', 20)
    embed = make_embedder(extractor_of(2.0, 'a'), parallel.lay_out(), 20)
    seen = []

    def cut_short(examples):
        seen.append(len(examples))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return embed(examples)

    with pytest.raises(KeyboardInterrupt):
        found(extractor_of(2.0, 'a'), embed=cut_short)
    whole = found(extractor_of(2.0, 'a'), embed=cut_short)
    assert seen == [20, 20, 10, 10]
    np.testing.assert_allclose(whole.features, 2.0 * whole.examples.reshape(50, -1))


def test_a_damaged_file_is_computed_anew_and_a_read_only_folder_is_no_error(cache, monkeypatch):
    first = found(extractor_of(2.0, 'a'))
    (path,) = cache.iterdir()
    for damaged in (path.read_bytes()[:100], b''):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(found(extractor_of(2.0, 'a')).features, first.features)
    monkeypatch.setenv('GEN_JAX_CACHE', '/proc/none')
    np.testing.assert_array_equal(found(extractor_of(2.0, 'a')).features, first.features)
