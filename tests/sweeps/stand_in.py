"""Stands in for `launch.py` where a sweep is tested: trains in milliseconds, resumes, and crashes.

A run has `train.num_steps` steps, each noted in its folder as it is taken; one that is started
again goes on behind the last one. The metric depends on the fields and the seed alone. With a
learning rate of 666 it crashes, of 333 it diverges; with 111 it crashes at its first start only,
and with 75 it is asked to end then.
"""

import json
import sys
import time
from pathlib import Path

flags = dict(word.removeprefix('--').split('=', 1) for word in sys.argv[1:])
folder = Path(flags['workdir'])
rate = float(flags.get('config.optim.model.learning_rate', 0.001))
num_steps = int(flags.get('config.train.num_steps', 5))
rows = folder / 'metrics.jsonl'

if flags['mode'] == 'train':
    folder.mkdir(parents=True, exist_ok=True)
    starts = folder / 'starts'
    first_start = not starts.exists()
    with starts.open('a') as file:
        file.write('x')
    if rate == 666 or (rate == 111 and first_start):
        print('the planted fault', file=sys.stderr)
        sys.exit(1)
    if rate == 333:
        print('error: not finite', file=sys.stderr)
        sys.exit(3)
    if rate == 75 and first_start:
        sys.exit(75)
    done = len(rows.read_text().splitlines()) if rows.exists() else 0
    with rows.open('a') as file:
        for step in range(done + 1, num_steps + 1):
            time.sleep(0.02)
            file.write(json.dumps({'step': step}) + '\n')
            file.flush()
else:
    assert len(rows.read_text().splitlines()) == num_steps, 'evaluated before it was trained'
    value = rate * 100 + 0.01 * int(flags['config.seed'])
    record = {'value': value, 'stderr': 0.001, 'metric': 'SW', 'n': 8, 'better': 'lower'}
    record |= {'estimator': 'estimate', 'step': num_steps, 'commit': 'abc'}
    (folder / 'evaluation.json').write_text(json.dumps({'SW-0123': record}))
