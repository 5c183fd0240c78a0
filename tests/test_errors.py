"""What an error means."""

import errno

import pytest

from gen_jax.errors import not_written

# What Orbax raises when TensorStore cannot write.
OF_TENSORSTORE = (
    'RESOURCE_EXHAUSTED: Error writing "model.kernel/0.0" in OCDBT database at local file '
    '"/runs/x/": Failed writing: "/runs/x/d/a2": Failed to write 4356 bytes to file 19: '
    "No space left on device [os_error_code='28']"
)


@pytest.mark.parametrize(
    ('error', 'said'),
    [
        (OSError(errno.EROFS, 'read-only', 'a'), 'a: Read-only file system; nothing is lost'),
        (OSError(errno.EFBIG, 'too large'), 'File too large; nothing is lost'),
        (ValueError(OF_TENSORSTORE), '/runs/x/: No space left on device; nothing is lost'),
    ],
    ids=str,
)
def test_a_disk_that_takes_no_more_is_found_in_whatever_it_led_to(error, said):
    outer = RuntimeError()
    outer.__context__ = error
    assert str(not_written(error)).startswith(said)
    assert str(not_written(outer)).startswith(said)


def test_other_errors_are_something_else():
    other = OSError(errno.EACCES, 'denied', 'a')
    other.__cause__ = ValueError(OF_TENSORSTORE.replace('28', '13'))
    assert not_written(other) is None
