"""Text sets of TensorFlow Datasets, read without TensorFlow (`tfds_sets.py`): each example is a
document, the feature `text` of it or else the only one that is text."""

import functools
from collections.abc import Iterable, Iterator

from gen_jax.data import tfds_sets
from gen_jax.data.corpus import Corpus, Document
from gen_jax.errors import InputError

_READ = 256  # examples read at a time


def corpus(name: str | None, data_dir: str | None, *, prepare: bool) -> Corpus:
    """The documents of the set `name` in `data_dir` (None: TFDS_DATA_DIR, or TFDS's own default).

    `train` is the split of that name; evaluation is `test`, else `validation`, if there is one.
    A set that is absent is downloaded and prepared if `prepare` says so; else the corpus says that
    it is not `present`, and cannot be read.

    Raises:
      InputError: the set is unknown or holds no text; or it is to be prepared, and cannot be had.
    """
    builder = tfds_sets.find(name, data_dir, 'imdb_reviews')
    feature = _feature(builder)
    if prepare:
        builder = tfds_sets.ready(name, builder)
    title = builder.info.full_name
    line = f'{title} (TFDS), {builder.data_path}'
    if not builder.is_prepared():
        lines = (line, 'absent: training would download and prepare it there')
        return Corpus(title, 'data.name', (title,), False, lines, lambda: iter(()))
    tfds_sets.check_format(builder)
    evaluation = tfds_sets.evaluation_split(builder)
    counts = {
        split: builder.info.splits[split].num_examples for split in ('train', evaluation) if split
    }
    shown = ' and '.join(f'{count:,} in {split}' for split, count in counts.items())
    documents = functools.partial(_documents, builder, feature)
    return Corpus(
        title=title,
        field='data.name',
        identity=('tfds', title, feature, str(builder.data_path), repr(counts)),
        present=True,
        lines=(line, f'documents: {shown}; {builder.info.dataset_size} on disk'),
        train=functools.partial(documents, 'train'),
        evaluation=functools.partial(documents, evaluation) if evaluation else None,
    )


def _feature(builder) -> str:
    import tensorflow_datasets as tfds

    texts = tfds_sets.features_of(builder, tfds.features.Text)
    if 'text' in texts:
        return 'text'
    if not texts:
        raise InputError(f'data.name: the TFDS set {builder.name!r} has no text')
    if len(texts) > 1:
        raise InputError(
            f'data.name: the TFDS set {builder.name!r} has several texts ({", ".join(texts)}) and '
            "none of them is called 'text'; take another set"
        )
    return texts[0]


def _documents(builder, feature: str, split: str) -> Iterator[Document]:
    source = builder.as_data_source(split=split)
    for start in range(0, len(source), _READ):
        numbers = range(start, min(start + _READ, len(source)))
        for number, record in zip(numbers, source.__getitems__(list(numbers)), strict=True):
            yield Document(f'{split} {number}', functools.partial(_text, record[feature]))


def _text(value: bytes | str) -> Iterable[str]:
    return (value.decode() if isinstance(value, bytes) else value,)
