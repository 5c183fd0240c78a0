"""Previews as a film: which frames, in which order, for how long, and what makes none."""

import importlib

import numpy as np
import pytest
from PIL import Image

from gen_jax.animate import animate
from gen_jax.errors import InputError

GRAY = {20: 40, 3: 0, 100000000: 255}  # the gray of each step's preview


@pytest.fixture
def config():
    return importlib.import_module('configs.ddpm_digits').get_config('smoke')


@pytest.fixture
def workdir(tmp_path):
    """Three previews, and files that are none."""
    samples = tmp_path / 'run' / 'samples'
    samples.mkdir(parents=True)
    for step, gray in GRAY.items():
        Image.fromarray(np.full((6, 10), gray, np.uint8)).save(samples / f'step_{step:08}.png')
    (samples / 'num64_seed0.png').write_text('samples drawn later')
    (samples / 'step_best.png').write_text('of a user')
    return tmp_path / 'run'


def frames_of(path):
    """(gray, milliseconds) of each frame."""
    with Image.open(path) as film:
        for number in range(film.n_frames):
            film.seek(number)
            film.load()
            pixels = np.asarray(film.convert('RGB'))
            assert pixels.shape == (6, 10, 3) and pixels.min() == pixels.max()
            yield int(pixels.max()), film.info['duration']


@pytest.mark.parametrize('name', [None, 'film.webp', 'film.gif'])
def test_frames_are_in_the_order_of_steps_and_the_last_one_stays(name, config, workdir, tmp_path):
    out = None if name is None else str(tmp_path / name)
    path = animate(config, workdir, out)
    assert path == (workdir / 'samples' / 'training.webp' if name is None else tmp_path / name)
    assert list(frames_of(path)) == [(0, 200), (40, 200), (255, 2000)]
    with Image.open(path) as film:
        assert film.format == path.suffix[1:].upper() and film.info['loop'] == 0
    assert not list(tmp_path.rglob('*.partial'))
    animate(config, workdir, out)  # again, over the first one
    assert len(list(frames_of(path))) == 3


def test_what_makes_no_film_is_refused(config, workdir, tmp_path):
    samples = workdir / 'samples'
    cut = samples / 'step_00000021.png'
    cut.write_bytes((samples / 'step_00000020.png').read_bytes()[:50])
    with pytest.raises(InputError, match=r'step_00000021\.png cannot be read as an image'):
        animate(config, workdir)
    Image.fromarray(np.zeros((6, 6), np.uint8)).save(cut)
    with pytest.raises(InputError, match=r'step_00000021\.png has another size'):
        animate(config, workdir)
    for step in (3, 20, 21):
        (samples / f'step_{step:08}.png').unlink()
    with pytest.raises(InputError, match=r'has 1 preview\(s\), and an animation needs 2 or more'):
        animate(config, workdir)
    assert not (samples / 'training.webp').exists()
    with pytest.raises(InputError, match=r'has 0 preview\(s\)'):
        animate(config, tmp_path / 'none')


@pytest.mark.parametrize(
    ('name', 'suffix'), [('gpt_shakespeare_char', '.txt'), ('gpt_jsb', '.mid')]
)
def test_only_pictures_can_be_animated(name, suffix, workdir):
    config = importlib.import_module(f'configs.{name}').get_config('smoke')
    with pytest.raises(InputError, match=rf'^data\.modality: previews of .* are {suffix} files'):
        animate(config, workdir)


def test_through_the_door(launch, workdir, tmp_path):
    flags = ('--config=configs/ddpm_digits.py:smoke', '--mode=animate', f'--workdir={workdir}')
    done = launch(*flags, f'--out={tmp_path / "film.gif"}')
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / 'film.gif')
    done = launch(*flags, f'--out={tmp_path / "film.mp4"}')
    assert done.returncode == 2
    assert done.stderr.startswith('error: --out: ') and 'end in .webp or .gif' in done.stderr
    done = launch(*flags, f'--workdir={tmp_path / "none"}')
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    assert 'has 0 preview(s)' in done.stderr and not (tmp_path / 'none').exists()
