"""Rows, the display and atomic files."""

import json

import pytest

from gen_jax.writers import Display, MetricsWriter, Report, read_rows, write_atomically


class Pending(float):
    """A value that a device is still computing."""

    def is_ready(self) -> bool:
        return False


def test_rows_after_the_restored_step_are_dropped(tmp_path):
    writer = MetricsWriter(tmp_path)
    for step in (1, 2, 3):
        writer.write(step, {'model/loss': step / 7, 'seconds': float(step)})
    writer.close()
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 4, "model/lo')  # killed here
    resumed = MetricsWriter(tmp_path, first_step=2)
    resumed.write(3, {'model/loss': 0.5})
    resumed.close()
    rows = read_rows(tmp_path / 'metrics.jsonl')
    assert [row['step'] for row in rows] == [1, 2, 3]
    assert rows[0]['model/loss'] == 1 / 7  # every digit survives
    assert rows[2]['model/loss'] == 0.5
    assert resumed.seconds_before == 2.0


def test_a_value_that_is_no_number_is_null(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write(1, {'model/loss': float('nan')})
    writer.close()
    assert json.loads((tmp_path / 'metrics.jsonl').read_text()) == {'step': 1, 'model/loss': None}


def test_tensorboard_events_hold_the_scalars(tmp_path):
    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import masked_crc32c  # noqa: F401  (the format is tfrecord)

    writer = MetricsWriter(tmp_path)
    writer.write(5, {'model/loss': 0.25})
    writer.close()
    data = next(tmp_path.glob('events.out.tfevents.*')).read_bytes()
    found = []
    while data:
        length = int.from_bytes(data[:8], 'little')
        event = event_pb2.Event.FromString(data[12 : 12 + length])
        found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
        data = data[16 + length :]
    assert (5, 'model/loss', 0.25) in found


def test_a_row_is_held_until_it_is_flushed_and_written_at_the_end(tmp_path):
    with Display(10) as display, Report(tmp_path, display, 0, 4, is_writer=True) as report:
        report.hold(1, {'model/loss': Pending(1.0)})
        assert read_rows(tmp_path / 'metrics.jsonl') == []
        report.flush()
        report.hold(3, {'model/loss': Pending(2.0)})
    first, second = read_rows(tmp_path / 'metrics.jsonl')
    assert 'examples_per_second' not in first  # it would time the compiler
    assert second['examples_per_second'] > 0
    assert second['seconds'] >= first['seconds']


def test_a_number_that_could_not_be_measured_is_a_row_like_any_other(tmp_path, capsys):
    results = {'SW-raw': {'value': 0.25}, 'memorization-raw': {'value': None}}
    with Display(1) as display, Report(tmp_path, display, 0, 4, is_writer=True) as report:
        row = report.evaluation(3, results)
    assert row == {'step': 3, 'eval/SW-raw': 0.25, 'eval/memorization-raw': None}
    assert read_rows(tmp_path / 'metrics.jsonl') == [row]
    assert capsys.readouterr().err == 'step 3  eval/SW-raw 0.25  eval/memorization-raw none\n'


def test_only_one_process_writes(tmp_path):
    with Display(1) as display, Report(tmp_path, display, 0, 4, is_writer=False) as report:
        report.hold(1, {'model/loss': Pending(1.0)})
    assert list(tmp_path.iterdir()) == []


def test_plain_lines_where_there_is_no_terminal(capsys):
    with Display(200, start=0) as display:
        display.report(1, {'model/loss': 0.5})
        display.report(100, {'model/loss': 0.1234567}, rate=1234.5)
    first, second = capsys.readouterr().err.splitlines()
    assert first == 'step 1/200  model/loss 0.5'  # compiling says nothing of the pace
    assert second.startswith('step 100/200  model/loss 0.1235  1,234 examples/s  0:00:0')
    assert second.endswith('left') and '\x1b' not in second


def test_a_hidden_display_says_nothing(capsys):
    with Display(2, hidden=True) as display:
        display.report(1, {})
        display.say('x')
    assert capsys.readouterr() == ('', '')


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'config.json'
    write_atomically(path, 'old')
    with pytest.raises(TypeError):
        write_atomically(path, object())
    assert path.read_text() == 'old'
