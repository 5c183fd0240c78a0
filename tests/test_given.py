"""Examples of which a part is given: which part, of what, and that it is kept."""

import importlib

import numpy as np
import pytest
from PIL import Image

from gen_jax import keys
from gen_jax.data import images, music, progressions, voices
from gen_jax.errors import InputError
from gen_jax.given import HELD_OUT, given_of
from gen_jax.run import assemble, initialize, load_data
from gen_jax.sample import make_sampler


def run_of(name):
    config = importlib.import_module(f'configs.{name}').get_config('smoke')
    return config, assemble(config)


@pytest.fixture(scope='module')
def digits():
    return run_of('igpt_digits')


@pytest.fixture(scope='module')
def chorales():
    return run_of('gpt_jsb')


@pytest.mark.parametrize(
    ('part', 'place'),
    [
        ('top', np.s_[:, :4]),
        ('bottom', np.s_[:, 4:]),
        ('left', np.s_[:, :, :4]),
        ('right', np.s_[:, :, 4:]),
    ],
)
def test_held_out_examples_are_given_in_part(part, place, digits, tmp_path):
    config, run = digits
    given = given_of(config, run, tmp_path, HELD_OUT, part, 5)
    split = load_data(config).evaluation
    expected = split.transform(split.fetch(np.arange(5)), np.zeros(5, np.uint64))
    np.testing.assert_array_equal(given.x, expected['x'])
    np.testing.assert_array_equal(given.label, expected.get('label'))
    belongs = np.zeros(given.x.shape, bool)
    belongs[place] = True
    np.testing.assert_array_equal(given.known, belongs)


@pytest.mark.parametrize(
    ('part', 'place'),
    [('soprano', np.s_[::4]), ('bass', np.s_[3::4]), ('beginning', np.s_[:16])],
)
def test_pieces_of_music_are_given_from_their_beginnings(part, place, tmp_path):
    """Not from wherever a window begins; one that is over sooner is followed by ends."""
    config = importlib.import_module('configs.gpt_jsb').get_config('smoke')
    config.data.update(context=64, evaluation_split='valid', evaluation_stride=4)
    run = assemble(config)
    given = given_of(config, run, tmp_path, HELD_OUT, part, 32)
    pieces = progressions.make(32, seed=1)  # the split 'valid' of what is made up
    assert len({len(piece) for piece in pieces}) > 1
    for x, known, piece in zip(given.x, given.known, pieces, strict=True):
        whole = np.full(64, voices.END)
        whole[: 4 * len(piece)] = voices.to_tokens(piece)[:64]
        np.testing.assert_array_equal(x, whole)
        belongs = np.zeros(64, bool)
        belongs[place] = True
        np.testing.assert_array_equal(known, belongs)


def test_several_parts_are_given_at_once(chorales, tmp_path):
    config, run = chorales
    given = given_of(config, run, tmp_path, HELD_OUT, 'soprano,bass', 2)
    np.testing.assert_array_equal(given.known[0], [True, False, False, True] * 4)
    with pytest.raises(InputError, match="--keep: 'soprano,top'"):
        given_of(config, run, tmp_path, HELD_OUT, 'soprano,top', 2)


def test_no_voice_ends_while_another_that_is_given_still_sounds(chorales, tmp_path):
    """A model that has learned nothing would end one of them soon."""
    config, run = chorales
    state, given = initialize(run, 0), given_of(config, run, tmp_path, HELD_OUT, 'soprano', 64)
    assert (given.x != voices.END).all()
    draw = make_sampler(run, 64, {})
    x = draw(state, keys.stream(0, 'sample'), 64, None, given[:2])
    assert (x[:, :13] != voices.END).all()  # up to the last given note
    np.testing.assert_array_equal(x[:, ::4], given.x[:, ::4])
    alone = draw(state, keys.stream(0, 'sample'), 64, None, (given.x, given.known & False))
    assert (alone[:, :13] == voices.END).any()


def test_few_examples_are_given_in_turn(digits, tmp_path):
    config, run = digits
    num = load_data(config).evaluation.num_examples
    given = given_of(config, run, tmp_path, HELD_OUT, 'top', num + 2)
    np.testing.assert_array_equal(given.x[num:], given.x[:2])
    np.testing.assert_array_equal(given.label[num:], given.label[:2])


def test_held_out_examples_of_other_data_are_refused(digits, tmp_path):
    (tmp_path / 'run.json').write_text('{"data_fingerprint": "other"}')
    with pytest.raises(InputError, match=r'^data: .* began with data of fingerprint other, and'):
        given_of(*digits, tmp_path, HELD_OUT, 'left', 2)


def test_what_is_given_is_kept_and_the_rest_is_drawn(digits, tmp_path):
    config, run = digits
    state, given = initialize(run, 0), given_of(config, run, tmp_path, HELD_OUT, 'left', 5)
    draw = make_sampler(run, 2, {})  # in batches of 2, 2 and 1
    x = draw(state, keys.stream(0, 'sample'), 5, given.label, given[:2])
    np.testing.assert_allclose(x[:, :, :4], given.x[:, :, :4], atol=1e-6)
    assert np.abs(x[:, :, 4:] - given.x[:, :, 4:]).max() > 0.1


def test_a_file_of_an_image_is_given(digits, tmp_path):
    config, run = digits
    native = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(1, 8, 8, 1)
    Image.fromarray(native[0, ..., 0]).save(tmp_path / 'one.png')
    given = given_of(config, run, tmp_path, str(tmp_path / 'one.png'), 'top', 3, label=4)
    assert given.label.tolist() == [4] * 3
    assert given.x.shape == (3, 8, 8, 1)
    back = images.decode(given.x, run.spec)
    assert np.abs(back.astype(int) - native).max() <= 255 / 16 / 2 + 1
    with pytest.raises(InputError, match='--label: say of which class'):
        given_of(config, run, tmp_path, str(tmp_path / 'one.png'), 'top', 3)
    with pytest.raises(InputError, match=r'--given: there is no file .*none\.png'):
        given_of(config, run, tmp_path, str(tmp_path / 'none.png'), 'top', 3)
    (tmp_path / 'two.png').write_text('no image')
    with pytest.raises(InputError, match=r'two\.png cannot be read as an image'):
        given_of(config, run, tmp_path, str(tmp_path / 'two.png'), 'top', 3)


def test_a_file_of_music_is_given_and_one_part_is_a_soprano(chorales, tmp_path):
    config, run = chorales
    piece = np.array([[[72, 67, 60, 48]] * 3 + [[74, 67, 59, 43]] * 3], np.int8)
    path = music.write(piece, tmp_path / 'four')
    given = given_of(config, run, tmp_path, str(path), 'soprano', 2)
    whole = voices.to_tokens(piece[0])
    assert given.x[0].tolist() == whole[:16].tolist()
    alone = piece.copy()
    alone[..., 1:] = -1
    path = music.write(alone, tmp_path / 'one')
    given = given_of(config, run, tmp_path, str(path), 'soprano', 1)
    assert given.x[0][given.known[0]].tolist() == [72, 72, 72, 74]
    (tmp_path / 'none.mid').write_text('no music')
    with pytest.raises(InputError, match=r'none\.mid cannot be encoded'):
        given_of(config, run, tmp_path, str(tmp_path / 'none.mid'), 'soprano', 1)


@pytest.mark.parametrize(
    ('name', 'part', 'message'),
    [
        ('igpt_digits', None, '--keep: None; say what is kept, of top'),
        ('igpt_digits', 'soprano', "--keep: 'soprano'"),
        ('gpt_jsb', 'top', "--keep: 'top'; say what is kept, of soprano"),
        ('gpt_text', 'top', '--given: text has no parts'),
        ('ddpm_digits', 'top', '--given: this method draws whole examples'),
        ('feature_net_digits', 'top', '--given: this method draws whole examples'),
    ],
)
def test_what_cannot_be_given_is_refused(name, part, message, tmp_path):
    config, run = run_of(name)
    with pytest.raises(InputError, match=message):
        given_of(config, run, tmp_path, HELD_OUT, part, 2)


def test_only_voices_have_parts(chorales):
    _, run = chorales
    spec = run.spec._replace(units=('note',))
    with pytest.raises(InputError, match='voices'):
        music.known('soprano', spec)
