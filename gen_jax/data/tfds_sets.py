"""Sets of TensorFlow Datasets, found and prepared without TensorFlow in this process.

TFDS stores a prepared set as array_record files, which any program can read at random. Preparing
them (once, after the download) does need TensorFlow: that runs in a process of its own, `prepare`,
so that TensorFlow is never loaded beside JAX.
"""

import difflib
import subprocess
import sys

from gen_jax.errors import InputError


def find(name: str | None, data_dir: str | None, example: str):
    """The TFDS builder of the set `name` in `data_dir`; the set need not be there.

    `data_dir` None means the environment's TFDS_DATA_DIR, else TFDS's own default. `example` is a
    name to suggest where none is given.

    Raises:
      InputError: no name, or one that TFDS does not know, with the nearest.
    """
    import tensorflow_datasets as tfds

    if not name:
        raise InputError(
            f"data.name: name a TFDS set when data.source is 'tfds', such as {example!r}"
        )
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
        hint = f'did you mean {", ".join(close)}?' if close else f'TFDS knows {len(known)} others'
        raise InputError(f'data.name: TFDS has no set {name!r}; {hint}') from None
    except (ValueError, AssertionError, RuntimeError) as error:  # No such config or version.
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f'data.name: {name!r} is not a set that TFDS can build: {reason}'
        ) from None


def features_of(builder, *kinds: type) -> list[str]:
    """The names of the set's features that are of these kinds, in its order."""
    features = builder.info.features
    items = features.items() if hasattr(features, 'items') else ()
    return [name for name, feature in items if isinstance(feature, kinds)]


def ready(name: str, builder):
    """The builder of a set whose files are there: prepared now, if they were not.

    Raises:
      InputError: it cannot be had, or only TensorFlow could read its files.
    """
    if not builder.is_prepared():
        _prepare(name, builder)
        builder = find(name, str(builder.data_dir_root), name)
    check_format(builder)
    return builder


def check_format(builder) -> None:
    """Raises InputError where only TensorFlow could read the files of a prepared set."""
    formats = [builder.info.file_format, *builder.info.alternative_file_formats]
    if not any(kind.value in ('array_record', 'parquet') for kind in formats):
        raise InputError(
            f'data.data_dir: {builder.data_path} holds the set as {formats[0].value}, which only '
            'TensorFlow reads; give another folder, and it will be prepared there as array_record'
        )


def evaluation_split(builder) -> str | None:
    """`test`, else `validation`, else None: of a prepared set, which must have `train`.

    Raises:
      InputError: it has not.
    """
    splits = builder.info.splits
    if 'train' not in splits:
        raise InputError(
            f'data.name: {builder.name!r} has no split train, only {", ".join(splits)}'
        )
    return next((name for name in ('test', 'validation') if name in splits), None)


def _prepare(name: str, builder) -> None:
    """Downloads and prepares a set in a process of its own, whose progress goes to the terminal."""
    root = builder.data_dir_root
    command = [sys.executable, '-m', 'gen_jax.data.prepare', f'--name={name}', f'--data_dir={root}']
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    # Another process may have done it meanwhile.
    if result.returncode == 0 or find(name, str(root), name).is_prepared():
        return
    reason = (result.stdout.strip().splitlines() or ['it ended without giving a reason'])[-1]
    raise InputError(
        f'data.name: {name!r} is not in {root} and cannot be prepared there: {reason}; or copy its '
        f'folder of array_record files to {builder.data_path}, or set data.data_dir to where it is'
    )
