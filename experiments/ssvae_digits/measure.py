"""Do images without labels help a classifier of digits? See README.md beside this file.

python experiments/ssvae_digits/measure.py --workdir=runs/ssvae_digits_seeds
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy import stats

ROOT = Path(__file__).parents[2]
OURS = 'ssvae_digits'
LABELED = ['--config.data.labels_per_class=10', '--config.data.labeled_only=True']
# By name: a config, and flags. All but the first see the labeled images alone.
RUNS = {
    OURS: ('ssvae_digits', []),
    'classifier_digits': ('classifier_digits', []),
    'classifier_digits, images not moved': (
        'classifier_digits',
        ['--config.method.max_shift=0'],
    ),
    'classifier_digits, dropout 0.5': (
        'classifier_digits',
        ['--config.networks.model.dropout=0.5'],
    ),
    'feature_net_digits, of convolutions': ('feature_net_digits', LABELED),
}


def main() -> None:
    """Trains what is not there yet, one run at a time, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--workdir', type=Path, required=True)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2, 3, 4])
    given = parser.parse_args()
    found = {}
    for number, (name, (config, flags)) in enumerate(RUNS.items()):
        found[name] = []
        for seed in given.seeds:
            folder = given.workdir / f'{config}_{number}_{seed}'
            train(config, folder, seed, flags)
            found[name].append(accuracies(folder))
            last = list(found[name][-1].items())[-1]
            print(f'{name}, seed {seed}: {last[1]:.4f} after {last[0]} steps', file=sys.stderr)
    table(given.seeds, found)


def train(config: str, folder: Path, seed: int, flags: list[str]) -> None:
    """One run; nothing happens where it has ended already."""
    command = [sys.executable, str(ROOT / 'launch.py'), f'--config={ROOT}/configs/{config}.py']
    command += [f'--workdir={folder}', f'--config.seed={seed}', f'--config.data.labels_seed={seed}']
    subprocess.run([*command, *flags], check=True, cwd=ROOT, stderr=subprocess.DEVNULL)


def accuracies(folder: Path) -> dict[int, float]:
    """By step, of the averaged weights on the held-out digits."""
    rows = map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
    return {row['step']: row['eval/accuracy'] for row in rows if 'eval/accuracy' in row}


def table(seeds: list[int], found: dict[str, list[dict[int, float]]]) -> None:
    """Ours at the last step; the others at theirs, and at the step that is best for their mean, by
    these same held-out digits."""
    print(f'| | step | {" | ".join(f"seed {seed}" for seed in seeds)} | mean | ours less this |')
    print('|---' * (len(seeds) + 4) + '|')
    ours = np.array([list(curve.values())[-1] for curve in found[OURS]])
    for name, curves in found.items():
        last = max(curves[0])
        best = max(curves[0], key=lambda step: np.mean([curve[step] for curve in curves]))
        for step in (last,) if name == OURS else dict.fromkeys((last, best)):
            values = np.array([curve[step] for curve in curves])
            digits = ' | '.join(f'{value:.4f}' for value in values)
            difference = '' if name == OURS else paired(ours - values)
            print(f'| {name} | {step:,} | {digits} | {values.mean():.4f} | {difference} |')


def paired(differences: np.ndarray) -> str:
    """Their mean in points, and half of its interval of 95 % by Student's t."""
    points = 100 * differences
    half = stats.sem(points) * stats.t.ppf(0.975, len(points) - 1)
    return f'{points.mean():.2f} ± {half:.2f}'


if __name__ == '__main__':
    main()
