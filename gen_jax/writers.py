"""What a run writes about itself: metrics as JSON lines and TensorBoard events, and a display.

`metrics.jsonl` is the record: one object a line, flushed as it is written. On a resumed run the
rows after the restored step are dropped, for they will be written again, equal.
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from gen_jax.files import replacing


def write_atomically(path: Path, text: str) -> None:
    """The whole text or none of it."""
    with replacing(path) as file:
        file.write(bytes(text, 'utf-8'))


def write_json(path: Path, value) -> None:
    """`value` as readable JSON, atomically; numbers that are not finite become null."""
    write_atomically(path, json.dumps(finite(value), indent=2) + '\n')


def finite(value):
    """The same JSON value with None for every NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_rows(path: Path) -> list[dict]:
    """The rows of a `metrics.jsonl`; a last line that was cut short is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class MetricsWriter:
    """Writes rows of scalars to `metrics.jsonl` and to TensorBoard, from `first_step` on."""

    def __init__(self, workdir: Path, first_step: int = 0):
        path = workdir / 'metrics.jsonl'
        kept = [row for row in read_rows(path) if row['step'] <= first_step]
        write_atomically(path, ''.join(json.dumps(row) + '\n' for row in kept))
        self.seconds_before = max((row.get('seconds', 0.0) for row in kept), default=0.0)
        self._file = path.open('a')
        self._events = _summary_writer(workdir, purge_step=first_step + 1)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds one row. A value that is no finite number is written as null."""
        row = finite(scalars)
        self._file.write(json.dumps({'step': step, **row}) + '\n')
        self._file.flush()
        for name, value in row.items():
            if value is not None:
                self._events.add_scalar(name, value, step)

    def sync(self) -> None:
        """Returns when the rows are on disk, even if the machine goes down."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flushes and closes both files."""
        self._file.close()
        self._events.close()


def _summary_writer(workdir: Path, purge_step: int):
    """A TensorBoard writer, imported only where a run needs it, and without PyTorch.

    tensorboardX imports torch wherever it finds it, for types that are never used here; that
    would take seconds and hundreds of megabytes. A None in `sys.modules` makes it not find it.
    """
    hidden = 'torch' not in sys.modules
    if hidden:
        sys.modules['torch'] = None
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules['torch']
    return SummaryWriter(str(workdir), purge_step=purge_step)


class Display:
    """Progress on stderr: a live bar in a terminal, plain lines elsewhere. Use in a `with` block.

    Args:
      total: steps of the whole task.
      start: steps done before.
      hidden: shows nothing.
    """

    def __init__(self, total: int, start: int = 0, hidden: bool = False):
        self._total = total
        self._console, self._hidden = Console(stderr=True), hidden
        self._since: tuple[float, int] | None = None
        self._bar = self._task = None
        if self._console.is_terminal and not hidden:
            self._bar = Progress(
                TextColumn('step'),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn('{task.fields[note]}'),
                TimeElapsedColumn(),
                TextColumn('left'),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task('', total=total, completed=start, note='compiling')

    def __enter__(self) -> 'Display':
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self._bar:
            self._bar.stop()

    def report(self, step: int, scalars: Mapping[str, float], rate: float | None = None) -> None:
        """Shows the main values at a step and, if known, how many examples a second."""
        shown = [f'{name} {value:.4g}' for name, value in scalars.items()]
        if rate is not None:
            shown.append(f'{rate:,.0f} examples/s' if rate >= 10 else f'{rate:.2g} examples/s')
        note = '  '.join(shown)
        if self._bar:
            self._bar.update(self._task, completed=step, note=note)
            return
        self.say(f'step {step}/{self._total}  {note}{self._time_left(step)}')

    def say(self, text: str) -> None:
        """One line that stays."""
        try:
            if self._bar:
                self._console.print(text, highlight=False, markup=False)
            elif not self._hidden:
                print(text, file=sys.stderr, flush=True)
        except OSError:  # the terminal or the pipe is gone; what is done does not depend on it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())

    def _time_left(self, step: int) -> str:
        """From the pace since the first report, which compilation precedes."""
        now = time.perf_counter()
        if self._since is None:
            self._since = (now, step)
        begun, first = self._since
        if step == first:
            return ''
        seconds = int((now - begun) / (step - first) * (self._total - step))
        return f'  {seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left'


class Report:
    """What the loop says while it runs: rows, the display, and the clock behind both.

    Use in a `with` block, which writes what is still held and closes the files.

    Args:
      workdir: where `metrics.jsonl` and the TensorBoard events go.
      display: where a person looks.
      first_step: the step that was restored, or 0.
      batch_size: examples in a step, for the rate.
      is_writer: whether this process writes files; of several processes one does.
    """

    def __init__(
        self, workdir: Path, display: Display, first_step: int, batch_size: int, is_writer: bool
    ):
        self._display, self._batch_size = display, batch_size
        self._writer = MetricsWriter(workdir, first_step) if is_writer else None
        self._seconds_before = self._writer.seconds_before if self._writer else 0.0
        self._begun = time.perf_counter()
        self._held = None
        self._new_rows = []
        # The window of the rate: when and at which step it began, and the time spent elsewhere.
        # It opens with the first row, after compilation.
        self._window: tuple[float, int] | None = None
        self._elsewhere = 0.0

    def __enter__(self) -> 'Report':
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            self.flush()
        if self._writer:
            self._writer.close()

    def say(self, text: str) -> None:
        """One line for a person."""
        self._display.say(text)

    def hold(self, step: int, metrics: Mapping) -> None:
        """Keeps a step's metrics until `flush`, if they are still being computed."""
        self._held = (step, metrics)
        # Where the step has already ended, its row has its true time only now.
        if all(value.is_ready() for value in metrics.values()):
            self.flush()

    def flush(self) -> None:
        """Waits for what is held, and writes its row."""
        if self._held is None:
            return
        (step, metrics), self._held = self._held, None
        row = {name: float(value) for name, value in metrics.items()}
        now = time.perf_counter()
        rate = None
        if self._window is not None:
            since, from_step = self._window
            spent = now - since - self._elsewhere
            rate = (step - from_step) * self._batch_size / max(spent, 1e-9)
        self._window, self._elsewhere = (now, step), 0.0
        losses = {name: value for name, value in row.items() if name.endswith('loss')}
        self._display.report(step, losses, rate)
        row['seconds'] = round(self._seconds_before + now - self._begun, 3)
        if rate is not None:
            row['examples_per_second'] = round(rate, 2)
        self._write(step, row)
        self._new_rows.append({'step': step, **row})

    def take(self) -> list[dict]:
        """The rows of training since the last call, for whoever looks at them."""
        taken, self._new_rows = self._new_rows, []
        return taken

    def sync(self) -> None:
        """Writes what is held, and returns when all rows are on disk for good."""
        self.flush()
        if self._writer:
            self._writer.sync()

    def evaluation(self, step: int, results: Mapping[str, Mapping]) -> dict:
        """Writes the row of an evaluation, `eval/<name>` for every value, and returns it. What
        could not be measured has the value None."""
        self.flush()
        if not results:
            return {'step': step}
        row = {f'eval/{name}': result['value'] for name, result in results.items()}
        shown = '  '.join(
            f'{name} none' if value is None else f'{name} {value:.4g}'
            for name, value in row.items()
        )
        self._display.say(f'step {step}  {shown}')
        self._write(step, row)
        return {'step': step, **finite(row)}

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Time in this block is not training time: the rate leaves it out."""
        self.flush()
        since = time.perf_counter()
        yield
        self._elsewhere += time.perf_counter() - since

    def _write(self, step: int, row: Mapping[str, float]) -> None:
        if self._writer:
            self._writer.write(step, row)
