"""The report of an evaluation: one HTML file that explains itself and needs nothing else.

It holds its own style and pictures and no script, asks no server for anything, and is plain ASCII,
so it looks the same from a disk, from an attachment and in years.
"""

import math
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from html import escape
from pathlib import Path

from gen_jax.report import curves
from gen_jax.report.page import columns, page, picture, table, words
from gen_jax.writers import write_atomically

_EQUALS = 'Compares only at equal numbers of samples and with the same features.'
_BOUND = 'Where the estimator says bound, the true value is at most this.'
# What models of tokens are measured by, besides tokens, and what that compares with.
_UNITS = {
    'token': 'Compares only with the same tokenizer.',
    'char': 'Compares between tokenizers, on the same text.',
    'byte': 'Compares between tokenizers, on the same text.',
    'frame': 'Compares on the same music and the same grid.',
    'note': 'Compares on the same music.',
}
# What each number says, for somebody who has never met it.
_MEANING = {
    **{
        f'{measure}_per_{unit}': f'The {measure} that each {unit} of unseen data costs, when the '
        f'model is used to compress it. {compares}'
        for unit, compares in _UNITS.items()
        for measure in ('nats', 'bits')
    },
    'perplexity': 'Among how many equally likely tokens the next one of unseen data seems to be '
    'chosen. Compares only with the same tokenizer.',
    'bits_per_dim': 'The bits that unseen data costs for each of its dimensions, when the model '
    f'is used to compress it. {_BOUND} Compares only on data with as many levels.',
    'nats_per_dim': 'The negative log-density of unseen data for each of its dimensions; it may '
    f'lie below 0. {_BOUND} Compares only on the same data in the same units.',
    'rate_bits_per_dim': 'The part of bits_per_dim that is spent on all steps but the last.',
    'distortion_bits_per_dim': 'The part of bits_per_dim that is spent on the last step, which '
    'gives the data exactly.',
    'nats': 'The negative log-probability, or log-density, of an unseen example, in nats. '
    f'{_BOUND} Compares only on the same data.',
    'rate': 'The part of the bound that is spent on the latents: what they say of the example.',
    'distortion': 'The part of the bound that is spent on the example when its latents are known.',
    'active_channels': 'How many channels of latents, over all blocks, say something of it.',
    'nats_with_label': 'The bound on the negative log-probability of an unseen example together '
    'with its label, in nats.',
    'classification_nats': 'What the labels of unseen examples cost by the classifier, in nats.',
    'active_units': 'How many of the latent numbers say something of the example. Far fewer than '
    'there are, or none: the decoder does without them (posterior collapse).',
    'exact_nats_per_dim': 'What a perfect model would reach on these examples: the law that they '
    'are drawn from is known.',
    'excess_nats_per_dim': 'How far the model, or the bound on it, lies above a perfect model. '
    '0 is perfect.',
    'loss': 'What training makes small, on unseen data. Compares only between runs of the same '
    'method and settings.',
    'discriminator_loss': "The discriminator's game on unseen examples and samples. It follows "
    'both players: lower may be a better discriminator or a worse generator.',
    'logit_of_real': 'What the discriminator answers to unseen examples. Its level means nothing; '
    'that it is far above logit_of_made means that it tells them from samples.',
    'logit_of_made': 'What the discriminator answers to samples.',
    'told_apart': 'The share of pairs of an unseen example and a sample in which the discriminator '
    'answers more to the former. 0.5 where it tells nothing apart, 1 where it always does.',
    'accuracy': 'The share of unseen examples whose class this classifier names.',
    'mse': 'The mean squared error of what comes back from the codes of unseen examples, where an '
    'image goes from 0 to 1.',
    'psnr': 'The same on a logarithmic scale, in decibels: 10 more are a tenth of the error.',
    'code_usage': 'The share of all codes that unseen examples have.',
    'code_perplexity': 'How many codes there would be if they were as varied and all equally '
    'frequent.',
    'FD': 'Fr\u00e9chet distance: how far the mean and the spread of the features of samples lie '
    'from those of real data. 0 is equal; fewer samples give more. It is called FID on the '
    f'features of one particular Inception network, and only there. {_EQUALS}',
    'KID': 'Kernel distance between the features of samples and of real data. About 0, and at '
    'times below it, where nothing tells them apart. Compares only with the same features.',
    'IS': 'Inception-style score: high where each sample is clearly of one class and the samples '
    'together are of all classes alike; from 1 to the number of classes. It never looks at real '
    f'data. {_EQUALS}',
    'confident': 'The share of samples whose class a classifier names with a probability above '
    '0.9: are they clearly something? Compares only with the same classifier.',
    'modes': 'How many of the classes have at least one such sample. Fewer than there are: the '
    f'model leaves some out (mode collapse). {_EQUALS}',
    'smallest_class': 'How common the rarest class is among the samples, where 1 is as common as '
    f'the others and 0 is absent. {_EQUALS}',
    'largest_class': 'How common the commonest class is among the samples, where 1 is as common '
    f'as the others. {_EQUALS}',
    'class_kl': 'Kullback-Leibler divergence, in nats, of the classes of samples from those of '
    'real data: are they equally frequent? 0 is equal; fewer samples give more. '
    f'{_EQUALS}',
    'precision': f'The share of samples that lie among real examples: do they look real? {_EQUALS}',
    'recall': 'The share of real examples that lie among the samples: is their whole variety '
    f'there? {_EQUALS}',
    'density': 'How densely real examples lie where the samples are. About 1 where samples are '
    f'like real data; it may be more. {_EQUALS}',
    'coverage': f'The share of real examples that have a sample close to them. {_EQUALS}',
    'C2ST': 'How often a classifier, trained to tell samples from real data, is right on new '
    'ones. 0.5 is what cannot be told apart; 1 is told apart every time.',
    'SW': 'Sliced Wasserstein distance: how far samples must be moved to become real data, seen '
    f'along random lines. 0 is equal; fewer samples give more. {_EQUALS}',
    'MMD': 'Maximum mean discrepancy, squared: a kernel distance between samples and real data. '
    'About 0, and at times below it, where nothing tells them apart.',
    'nearer': 'How often a sample lies nearer to the training set than an unseen real example '
    'does. 0.5 is what unseen data has; more leans towards the training examples.',
    'copied': 'The share of samples that nearly repeat a training example, beyond the share of '
    'unseen real examples that do. 0 is what unseen data has.',
    'exact_copies': 'The share of samples that equal a training example exactly. 0, unless the '
    'data repeat themselves.',
}
_BETTER = {
    'lower': '\u2193 lower',
    'higher': '\u2191 higher',
    'half': '\u2192 0.5',
    'nowhere': '\u2014',
}
_FIGURES = ('value', 'stderr', 'interval', 'metric')  # of one record alone, even if equal
_IN_ROW = ('n', 'estimator', 'better', 'flagged')  # seen in full without opening anything


def write_report(
    path: Path,
    *,
    name: str,
    records: Mapping[str, Mapping],
    rows: Sequence[Mapping],
    config: Mapping,
    facts: Mapping,
    pictures: Sequence[tuple[str, str, Path]] = (),
) -> None:
    """Writes the page, whole or not at all.

    Args:
      path: the file, in a folder that exists.
      name: of the run.
      records: `{name: {value, stderr, interval, n, estimator, metric, better, flagged, ...}}`, as
        in `evaluation.json`; any of these may be absent, and whatever else there is is shown.
      rows: of `metrics.jsonl`.
      config: the run's config, nested.
      facts: what made the run, nested or flat, as in `run.json`.
      pictures: title, caption and the path of a PNG.

    Raises:
      OSError: a picture cannot be read, or the page cannot be written.
      ValueError: a picture that is not a PNG.
    """
    body = [_header(name), _warning(records), _numbers(records)]
    if pictures:
        shown = '\n'.join(picture(*given) for given in pictures)
        body.append(f'<section><h2>Pictures</h2>\n<div class="pictures">{shown}</div></section>')
    body += [
        _curves(rows),
        f'<section><h2>What made it</h2>\n{columns(facts)}</section>',
        f'<section><h2>Config</h2>\n{columns(config)}</section>',
    ]
    write_atomically(path, page(f'{name}: evaluation', body))


def _header(name: str) -> str:
    now = time.gmtime()
    return (
        f'<header><h1>{escape(name)}</h1>\n<p>How good a trained generative model is: its scores '
        'with what each of them means, its pictures, how its training went, and what it takes to '
        f'do it again.</p>\n<p class="soft">Written on {now.tm_mday} '
        f'{time.strftime("%B %Y, %H:%M", now)} UTC</p></header>'
    )


def _warning(records: Mapping[str, Mapping]) -> str:
    names = [escape(name) for name, record in records.items() if record.get('flagged')]
    if not names:
        return ''
    return (
        '<p class="warning" role="note"><strong>This model may have memorized its training data.'
        '</strong> Its samples lie closer to training examples than chance explains: see '
        f'{", ".join(names)}.</p>'
    )


def _numbers(records: Mapping[str, Mapping]) -> str:
    if not records:
        return '<section><h2>Numbers</h2>\n<p class="soft">None were recorded.</p></section>'
    first, *others = records.values()
    shared = {
        key: value
        for key, value in first.items()
        if key not in _FIGURES + _IN_ROW
        and others
        and all(key in record and record[key] == value for record in others)
    }
    common = f'<h3>What all of them share</h3>\n{columns(shared)}' if shared else ''
    heads = {
        'name': '',
        'value': 'value',
        'error': '\u00b1 standard error',
        'interval': '95 % interval',
        'n': 'n',
        'better': 'better',
    }
    head = ''.join(f'<span class="{kind}">{text}</span>' for kind, text in heads.items())
    body = '\n'.join(_record(name, record, shared) for name, record in records.items())
    return (
        '<section><h2>Numbers</h2>\n<p class="soft">The standard error is about how far chance '
        'alone moves a value, and the interval about 1.96 of it to either side; n is how many '
        'examples were used, or tokens or characters in them. Open a row for all that is known of '
        f'it.</p>\n{common}\n'
        f'<div class="head" aria-hidden="true">{head}</div>\n{body}</section>'
    )


def _record(name: str, record: Mapping, shared: Mapping) -> str:
    value, error, interval = _figures(record)
    n, better = record.get('n'), _BETTER.get(record.get('better'), '')
    flag = '<span class="flag">flagged</span>' if record.get('flagged') else ''
    meta = [
        f'<span class="{kind}"><span class="label">{label} </span>{text}</span>'
        if text
        else f'<span class="{kind}"></span>'
        for kind, label, text in (
            ('interval', '95 % interval', interval),
            ('n', 'n', escape(f'{n:,}' if isinstance(n, int) else words(n)) if n else ''),
            ('better', 'better', better),
        )
    ]
    meaning = _MEANING.get(record.get('metric') or name, '')
    if real := record.get('held_out'):
        got, spread, _ = _figures(real)
        meaning += f' Held-out examples get {got} {spread} (n = {real["n"]:,}).'
    estimator = record.get('estimator')
    passport = {key: part for key, part in record.items() if key not in {*shared, *_IN_ROW}}
    return (
        f'<details class="record"><summary><span class="name">{escape(name)}{flag}</span>'
        f'<span class="score"><span class="value">{value}</span>'
        f'<span class="error">{error}</span></span>'
        f'<span class="meta">{"".join(meta)}</span>'
        + (f'<span class="about">{meaning}</span>' if meaning else '')
        + (
            f'<span class="estimator">Estimator: {escape(words(estimator))}</span>'
            if estimator
            else ''
        )
        + f'</summary>\n{table(passport)}</details>'
    )


def _figures(record: Mapping) -> tuple[str, str, str]:
    """Value, standard error and interval, rounded alike: to two digits of the error."""
    value, error = record.get('value'), record.get('stderr')
    if not _is_finite(value):
        return 'none', '', ''
    has_error = _is_finite(error)
    interval = record.get('interval') or ()
    interval = interval if len(interval) == 2 and all(map(_is_finite, interval)) else ()
    spread = error if has_error else (interval[1] - interval[0]) / 4 if interval else 0
    power = _power(max(abs(value), spread))
    power = 0 if -4 <= power < 6 else power
    last_digit = _power(spread) - 1 if spread > 0 else _power(value) - 3 if value else 0
    decimals = min(max(0, power - last_digit), 9)

    def text(number: float) -> str:
        return curves.minus(f'{Decimal(number).scaleb(-power):,.{decimals}f}')

    times = f' \u00d7 10<sup>{curves.minus(str(power))}</sup>' if power else ''
    first, last = ('(', f'){times}') if power else ('', '')
    return (
        first + text(value) if has_error else text(value) + times,
        f'\u00b1 {text(error)}{last}' if has_error else '',
        f'{first}{text(interval[0])} to {text(interval[1])}{last}' if interval else '',
    )


def _power(number: float) -> int:
    """Of ten, in scientific notation."""
    return math.floor(math.log10(abs(number))) if number else 0


def _is_finite(value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _curves(rows: Sequence[Mapping]) -> str:
    """Every series of the rows: training losses, then evaluations, then the rest folded away."""
    series: dict[str, list[curves.Point]] = {}
    for row in sorted(rows, key=lambda row: row['step']):
        for name, value in row.items():
            if name != 'step':
                point = (row['step'], value if _is_finite(value) else None)
                series.setdefault(name, []).append(point)
    if not series:
        return '<section><h2>Training</h2>\n<p class="soft">No curves were recorded.</p></section>'
    last_step = max(row['step'] for row in rows)
    evaluations = [name for name in series if name.startswith('eval/')]
    losses = [name for name in series if name.endswith('loss') and name not in evaluations]
    rest = [name for name in series if name not in evaluations + losses]

    def charts(names: Sequence[str]) -> str:
        drawn = '\n'.join(curves.draw(name, series[name], last_step) for name in names)
        return f'<div class="curves">{drawn}</div>'

    parts = []
    if losses + evaluations:
        parts.append(charts(losses + evaluations))
    if rest:
        parts.append(
            '<details class="fold"><summary>Everything else that was recorded</summary>\n'
            f'{charts(rest)}</details>'
        )
    return (
        '<section><h2>Training</h2>\n<p class="soft">Each value against the step of training, the '
        'last one at the top right. Names that begin with eval/ are of evaluations, with averaged '
        'weights. Where values are many, the strong line is the median of their neighbors.</p>\n'
        + '\n'.join(parts)
        + '</section>'
    )
