"""Whether a run goes wrong though all its numbers are finite: a GAN that collapses, say.

A method names its symptoms, metrics that should not be below a value. The watch reads the rows of
`metrics.jsonl` as they are written. Where a metric has been too low in several rows one after the
other it says so, once until the metric recovers; and where the config asks for it, it ends the run
after so many.
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence

import jax

from gen_jax.errors import Collapsed
from gen_jax.methods.method import Symptom

# Rows in a row before anything is said: a single one may be an unlucky batch.
PATIENCE = 5


class Watch:
    """Follows the rows of a run.

    Args:
      symptoms: of the method.
      limit: rows in a row with a symptom after which the run ends; None for never.
      rows: those that were written before, of a run that goes on.
    """

    def __init__(self, symptoms: Sequence[Symptom], limit: int | None, rows: Iterable[Mapping]):
        self._limit = limit
        self._in_a_row = dict.fromkeys(symptoms, 0)
        for row in rows:
            self._count(row)

    def follow(self, rows: Iterable[Mapping]) -> None:
        """Takes the next rows.

        Raises:
          Collapsed: the limit is reached.
        """
        for row in rows:
            self._look(row)

    def finish(self) -> None:
        """Says once more, of a run that reached its end, what was still wrong with it."""
        for symptom, count in self._in_a_row.items():
            if count >= PATIENCE and jax.process_index() == 0:
                print(
                    f'warning: to the end {symptom.metric} was below {symptom.least:g}: '
                    f'{symptom.meaning}',
                    file=sys.stderr,
                )

    def _look(self, row: Mapping) -> None:
        for symptom, value in self._count(row).items():
            count = self._in_a_row[symptom]
            what = (
                f'{symptom.metric} is {value:.3g}, below {symptom.least:g}, in {count} rows one '
                f'after the other, to step {row["step"]}: {symptom.meaning}'
            )
            if count == PATIENCE and jax.process_index() == 0:
                print(f'warning: {what}', file=sys.stderr)
            if self._limit is not None and count >= self._limit:
                raise Collapsed(what)

    def _count(self, row: Mapping[str, float]) -> dict[Symptom, float]:
        """The symptoms that a row shows, with their values. A value that is no finite number says
        nothing, whether it was just computed or comes from a file, where it is null."""
        shown = {}
        for symptom in self._in_a_row:
            value = row.get(symptom.metric)
            if value is None or not math.isfinite(value):
                continue  # also a row of something else
            below = value < symptom.least
            self._in_a_row[symptom] = self._in_a_row[symptom] + 1 if below else 0
            if below:
                shown[symptom] = value
        return shown
