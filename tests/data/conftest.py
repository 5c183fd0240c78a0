"""Sets as TFDS writes them: array_record shards and two JSON files."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def write_tfds():
    """A function that writes a set of `name/version` under root: for each split a list of examples
    `{feature: bytes or int}`."""

    def write(root: Path, name: str, version: str, splits: dict[str, list], file_format: str):
        import tensorflow_datasets as tfds
        from array_record.python.array_record_module import ArrayRecordWriter
        from tensorflow_datasets.proto import tf_example_pb2

        folder = root / name / version
        folder.mkdir(parents=True)
        for split, examples in splits.items():
            shard = folder / f'{name}-{split}.{file_format}-00000-of-00001'
            writer = ArrayRecordWriter(str(shard), 'group_size:1')
            for values in examples:
                example = tf_example_pb2.Example()
                for key, value in values.items():
                    feature = example.features.feature[key]
                    kind = feature.bytes_list if isinstance(value, bytes) else feature.int64_list
                    kind.value.append(value)
                writer.write(example.SerializeToString())
            writer.close()
        tfds.builder(name, data_dir=root / 'elsewhere').info.features.save_config(folder)
        template = '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}'
        info = {
            'name': name,
            'version': version,
            'fileFormat': file_format,
            'splits': [
                {'name': split, 'shardLengths': [str(len(e))], 'filepathTemplate': template}
                for split, e in splits.items()
            ],
        }
        (folder / 'dataset_info.json').write_text(json.dumps(info))

    return write
