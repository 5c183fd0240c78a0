"""What a sweep shows while it runs: a live table in a terminal, else a line for each change."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from gen_jax.sweeps.runner import Outcome
from gen_jax.sweeps.study import Trial
from gen_jax.writers import read_rows

# Rows of a terminal that are left for other things than trials.
_OTHER_ROWS = 8
_ORDER = ('running', 'failed', 'waiting', 'done')


class Board:
    """The state of every trial; a context."""

    def __init__(self, trials: Sequence[Trial], folder: Path):
        self._trials, self._folder = trials, folder
        self._console = Console()
        self._live = Live(console=self._console, transient=False, auto_refresh=False)
        self._states: dict[str, str] = {}
        self._since: dict[str, float] = {}

    def __enter__(self) -> 'Board':
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, outcomes: Mapping[str, Outcome], running: set[str]) -> None:
        """Shows what has become of the trials; `running` are the names of those that run."""
        first = not self._states
        states = {
            trial.name: 'running' if trial.name in running else _state(outcomes.get(trial.name))
            for trial in self._trials
        }
        changed = [name for name, state in states.items() if self._states.get(name) != state]
        self._states = states
        for name in changed:
            self._since[name] = time.monotonic()
        if self._console.is_terminal:
            self._live.update(self._table(), refresh=True)
            return
        counts = Counter(states.values())
        if first:
            left = len(states) - counts['done']
            print(f'{len(states)} trials, {left} to run', flush=True)
        for name in changed:
            if states[name] != 'waiting' and not (first and states[name] == 'done'):
                print(
                    f'{states[name]:8s}{name}  ({counts["done"]} of {len(states)} done)', flush=True
                )

    def _table(self) -> Table:
        counts = Counter(self._states.values())
        said = ', '.join(f'{counts[state]} {state}' for state in _ORDER if counts[state])
        table = Table(title=said, title_justify='left')
        for column in ('trial', 'state', 'step', 'minutes'):
            table.add_column(column, justify='left' if column == 'trial' else 'right')
        room = max(self._console.height - _OTHER_ROWS, 3)
        names = sorted(self._states, key=lambda name: _ORDER.index(self._states[name]))
        for name in names[:room]:
            running = self._states[name] == 'running'
            rows = read_rows(self._folder / name / 'metrics.jsonl') if running else []
            step = f'{rows[-1]["step"]:,}' if rows else ''
            minutes = f'{(time.monotonic() - self._since[name]) / 60:.1f}' if running else ''
            table.add_row(name, self._states[name], step, minutes)
        if len(names) > room:
            table.add_row(f'and {len(names) - room} more', '', '', '')
        return table


def _state(outcome: Outcome | None) -> str:
    return 'waiting' if outcome is None or outcome.state == 'stopped' else outcome.state
