"""Seven autoencoders of digits side by side, and a curve of rate and distortion. See README.md.

python experiments/autoencoders_digits/measure.py --workdir=runs/autoencoders_digits
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
DIMS = 64  # of a digit
UNCONDITIONAL = '--config.method.class_conditional=False'
INNER_UNCONDITIONAL = '--config.method.inner.class_conditional=False'
FROM_FIRST = '--config.restore.autoencoder={first}'
# By name: the run that it begins with or None, a config, and flags.
MODELS = {
    'VAE': (None, 'vae_digits', []),
    'IWAE, K = 20': (
        None,
        'vae_digits',
        ['--config.method.gradient=dreg', '--config.method.num_samples=20'],
    ),
    'VAMP prior': (None, 'vae_digits', ['--config.method.prior.name=priors.Vamp']),
    'flow prior': (None, 'vae_digits', ['--config.method.prior.name=priors.FlowPrior']),
    'hierarchical': (None, 'vdvae_digits', [UNCONDITIONAL]),
    'FSQ codes': (None, 'fsq_digits', []),
    'FSQ + transformer': ('FSQ codes', 'vq_gpt_digits', [INNER_UNCONDITIONAL]),
    'VAE + latent flow': ('VAE', 'latent_flow_digits', [INNER_UNCONDITIONAL]),
}
BETAS = (0.1, 0.3, 0.5, 2.0, 4.0, 10.0)  # beside 1


def main() -> None:
    """Trains and evaluates what is not there yet, one run at a time, and prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--workdir', type=Path, required=True)
    parser.add_argument('--seed', type=int, default=0)
    given = parser.parse_args()
    workdir, folders = given.workdir.resolve(), {}
    for number, (name, (first, config, flags)) in enumerate(MODELS.items()):
        folders[name] = workdir / f'{number}_{config}'
        if first is not None:
            flags = [*flags, FROM_FIRST.format(first=folders[first])]
        run(config, folders[name], [f'--config.seed={given.seed}', *flags])
    curve = {1.0: folders['VAE']}
    for beta in BETAS:
        curve[beta] = workdir / f'beta_{beta}'
        flags = [f'--config.seed={given.seed}', f'--config.method.beta={beta}']
        # Of the curve there are no scores of samples.
        run('vae_digits', curve[beta], flags, ['--config.evaluate.scores.num=None'])
    models_table(folders)
    curve_table(curve)


def run(config: str, folder: Path, flags: list[str], to_evaluate: Sequence[str] = ()) -> None:
    """Training and evaluation; neither happens again where it has ended already."""
    command = [sys.executable, str(ROOT / 'launch.py'), f'--config={ROOT}/configs/{config}.py']
    command += [f'--workdir={folder}', *flags]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    if not (folder / 'evaluation.json').exists():
        command += ['--mode=evaluate', *to_evaluate]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def models_table(folders: dict[str, Path]) -> None:
    """Bounds in nats, scores of samples, and the seconds that training took, of both stages."""
    print('| model | bound, nats | bits/dim | active | FD | precision | recall | seconds |')
    print('|---|---|---|---|---|---|---|---|')
    for name, folder in folders.items():
        found = measured(folder)
        if 'nats' not in found:
            continue  # a first stage alone
        first = MODELS[name][0]
        seconds = [duration(folders[stage]) for stage in (first, name) if stage is not None]
        scores = [shown(found.get(metric), 3) for metric in ('FD', 'precision', 'recall')]
        bound = found['nats']
        cells = [shown(bound, 2), shown(bits(bound), 3), shown(active(found), 1), *scores]
        print(f'| {name} | {" | ".join(cells)} | {" + ".join(map(str, seconds))} |')


def curve_table(folders: dict[float, Path]) -> None:
    """What the latents say of an example, and what is left to say, by the weight of the former."""
    print('\n| beta | rate, nats | distortion, nats | sum | bound, 500 draws | active |')
    print('|---|---|---|---|---|---|')
    for beta, folder in sorted(folders.items()):
        found = measured(folder)
        rate, distortion = found['rate'], found['distortion']
        total = f'{rate["value"] + distortion["value"]:.2f}'
        parts = [shown(rate, 2), shown(distortion, 2), total, shown(found['nats'], 2)]
        print(f'| {beta} | {" | ".join(parts)} | {shown(active(found), 0)} |')


def measured(folder: Path) -> dict[str, dict]:
    """By the metric's name."""
    records = json.loads((folder / 'evaluation.json').read_text()).values()
    return {record['metric']: record for record in records}


def bits(bound: dict) -> dict:
    """Nats of an image as bits of a pixel."""
    scale = 1 / (DIMS * math.log(2))
    return {'value': bound['value'] * scale, 'stderr': bound['stderr'] * scale}


def active(found: dict[str, dict]) -> dict | None:
    """Latent numbers that say something, or channels of a hierarchy."""
    return found.get('active_units', found.get('active_channels'))


def duration(folder: Path) -> int:
    """Seconds of training, with what happens beside it."""
    rows = map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
    return round(max(row.get('seconds', 0.0) for row in rows))


def shown(record: dict | None, digits: int) -> str:
    """A value with its error where it has one."""
    if record is None or record['value'] is None:
        return ''
    text = f'{record["value"]:.{digits}f}'
    return text if record['stderr'] is None else f'{text} ± {record["stderr"]:.{digits}f}'


if __name__ == '__main__':
    main()
