"""`--mode=animate`: the previews of a run, one after the other, as a film of how it learned."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from gen_jax import hosts
from gen_jax import workdir as workdirs
from gen_jax.errors import InputError
from gen_jax.files import replacing
from gen_jax.run import modality

if TYPE_CHECKING:
    from PIL import Image

# What Pillow is told of each format besides frames and times. WebP keeps every pixel; GIF has 256
# colors for each frame.
_FORMATS = {
    '.webp': {'format': 'WEBP', 'lossless': True},
    '.gif': {'format': 'GIF'},
}
_MILLISECONDS = 200
_MILLISECONDS_OF_LAST = 2000


def animate(config, workdir: Path, out: str | None = None) -> Path:
    """Joins the pictures that a run drew while it trained, in the order of their steps; the last
    one stays longer, and then it begins again.

    Args:
      config: the run's config.
      workdir: the run's folder.
      out: the file, `.webp` or `.gif`; None for `samples/training.webp` in the workdir.

    Returns:
      The file.

    Raises:
      InputError: bad config or flags, samples that are no pictures, too few of them, or some that
        cannot be read or have another size than the others.
    """
    if out is None:
        workdirs.check(workdir, config)
        path = workdir / 'samples' / 'training.webp'
    else:
        workdirs.check_config(workdir, config)
        path = workdirs.check_out(out, tuple(_FORMATS))
    (kind, *_) = modality(config).SUFFIXES
    if kind != '.png':
        raise InputError(
            f'data.modality: previews of {config.data.modality} are {kind} files; only pictures '
            'can be animated'
        )
    frames = _pictures(workdir)
    if hosts.is_first():
        times = [_MILLISECONDS] * (len(frames) - 1) + [_MILLISECONDS_OF_LAST]
        first, *others = frames
        with replacing(path) as file:
            first.save(
                file,
                save_all=True,
                append_images=others,
                duration=times,
                loop=0,
                **_FORMATS[path.suffix],
            )
        print(path)
    return path


def _pictures(workdir: Path) -> list['Image.Image']:
    """The previews in the order of their steps.

    Raises:
      InputError: as `animate`.
    """
    from PIL import Image

    found = {}
    for path in (workdir / 'samples').glob('step_*.png'):
        match = re.fullmatch(r'step_(\d+)', path.stem)
        if match:
            found[int(match[1])] = path
    if len(found) < 2:
        raise InputError(
            f'--workdir: {workdir} has {len(found)} preview(s), and an animation needs 2 or more; '
            'train with a smaller train.sample_every'
        )
    frames = []
    for _, path in sorted(found.items()):
        try:
            with Image.open(path) as image:
                frames.append(image.convert('RGB'))
        except Exception:  # A damaged file makes Pillow raise nearly anything.
            raise InputError(f'--workdir: {path} cannot be read as an image; remove it') from None
        if frames[-1].size != frames[0].size:
            raise InputError(
                f'--workdir: {path} has another size than the previews before it, as where '
                'sample.num has changed; remove those of one size'
            )
    return frames
