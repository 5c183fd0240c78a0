"""Downloads a TFDS set and prepares it as array_record files, which `tfds_images` can read.

    python -m gen_jax.data.prepare --name=cifar10 --data_dir=DIR

Training starts this by itself when a set is absent. It is a process of its own because TFDS
unpacks archives, encodes images and serializes examples with TensorFlow, which must never be
loaded beside JAX (both would take the accelerator). TFDS verifies the checksum of every download
and renames the finished set into place, so an interrupted run leaves nothing that a later one
would take for data.

Exit status 0 if the set is there, else 2, with the reason as the last line on stdout; progress goes
to stderr.
"""

import argparse
import os
import sys
from urllib.parse import urlparse

from gen_jax.errors import InputError

_EXTRA = "pip install 'gen_jax[prepare]' (in a checkout: pip install -e '.[prepare]')"


def prepare(name: str, data_dir: str) -> None:
    """Makes sure that the set `name` lies prepared under `data_dir`.

    Raises:
      InputError: if no source answers, a package is missing, or TFDS fails, with the reason.
    """
    os.environ['CUDA_VISIBLE_DEVICES'] = '-1'  # TensorFlow would take the memory of the GPU.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format='array_record')
        _check_network(list(builder.url_infos))
        import tensorflow  # noqa: F401  Asked for now, not after the download.

        builder.download_and_prepare(download_config=config)
    except ModuleNotFoundError as error:
        hint = '' if error.name == 'apache_beam' else f': {_EXTRA}, then the same command again'
        raise InputError(f'preparing it needs the package {error.name}{hint}') from None
    except InputError:
        raise
    except Exception as error:  # TFDS builders raise anything; the type belongs to the reason.
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise InputError(reason if len(reason) < 400 else reason[:400] + ' …') from error


def _check_network(urls: list[str]) -> None:
    """Raises InputError if none of the sources can be reached.

    TFDS itself would try ten times, ever more slowly, and give up after minutes.
    """
    import requests

    first_of_host = {urlparse(url).netloc: url for url in reversed(urls) if url.startswith('http')}
    for url in list(first_of_host.values())[:3]:
        try:
            requests.get(url, stream=True, timeout=5).close()
            return
        except requests.exceptions.RequestException:
            continue
    if first_of_host:
        raise InputError(f'there is no network, or {" and ".join(first_of_host)} cannot be reached')


def main() -> int:
    """The command line: --name and --data_dir; returns the exit status."""
    parser = argparse.ArgumentParser(prog='python -m gen_jax.data.prepare')
    parser.add_argument('--name', required=True, help='a TFDS set, such as cifar10')
    parser.add_argument('--data_dir', required=True, help='the folder that holds TFDS sets')
    arguments = parser.parse_args()
    try:
        prepare(arguments.name, arguments.data_dir)
    except InputError as error:
        print(error)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
