"""The frame of a page: its style, its tables and its pictures, in one file that needs no other.

No script, no font and no picture comes from elsewhere, and the policy in the head makes a browser
refuse what asks for one.
"""

import base64
import struct
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path

_WIDE = 480  # smaller pictures are shown larger, up to so many pixels

_STYLE = """
:root { --paper: #fff; --ink: #1d1f22; --soft: #62666e; --rule: #e3e4e6; --line: #2b62b8;
  --warn: #fff5e3; --warn-edge: #d08300; color-scheme: light dark; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #141618; --ink: #e4e5e7; --soft: #9a9fa8; --rule: #2d3034; --line: #82aef2;
    --warn: #2e2412; --warn-edge: #d9972b; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: clamp(1.5rem, 5vw, 4.5rem) clamp(1.1rem, 5vw, 3rem) 5rem;
  max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, 'Open Sans', sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
h1 { margin: 0 0 .9rem; font-size: clamp(1.7rem, 5vw, 2.4rem); line-height: 1.2;
  letter-spacing: -.015em; }
h2 { margin: 4rem 0 .4rem; font-size: 1.3rem; letter-spacing: -.005em; }
h3 { margin: 2rem 0 .3rem; font-size: 1rem; }
p { margin: 0 0 1rem; max-width: 44rem; }
.soft, .about, .estimator, .head, .label, figcaption, th { color: var(--soft); }
.about, .estimator, .meta, .head, figcaption, table { font-size: .875rem; line-height: 1.5; }
.warning { margin: 2rem 0; padding: .9rem 1.1rem; background: var(--warn);
  border-left: 4px solid var(--warn-edge); border-radius: 3px; max-width: none; }
.flag { margin-left: .5em; padding: .05em .5em; font-size: .8rem; font-weight: 400;
  white-space: nowrap; border: 1px solid var(--warn-edge); border-radius: 1em; }
summary { cursor: pointer; list-style: none; position: relative; }
summary::-webkit-details-marker { display: none; }
summary::after { content: ''; position: absolute; width: .45rem; height: .45rem;
  border: solid var(--soft); border-width: 0 1.5px 1.5px 0; transform: rotate(45deg); }
details[open] > summary::after { transform: rotate(225deg); }
summary:focus-visible { outline: 2px solid var(--line); outline-offset: 3px; border-radius: 3px; }
.head, .record > summary { display: grid; column-gap: 1rem; padding-right: 2rem;
  align-items: baseline; grid-template-columns: minmax(0, 1fr) 6rem 8.5rem 11.5rem 5rem 5rem; }
.head { margin-top: 2rem; padding-bottom: .5rem; border-bottom: 1px solid var(--ink); }
.score, .meta { display: contents; }
.record { border-bottom: 1px solid var(--rule); }
.record > summary { padding-top: 1rem; padding-bottom: 1rem; }
.record > summary::after { right: .5rem; top: 1.4rem; }
.record > table { margin: 0 0 1.5rem; }
.record .name, .record .value { font-weight: 600; }
.value, .n { text-align: right; }
.error, .better { white-space: nowrap; }
.about, .estimator { grid-column: 1 / -1; max-width: 46rem; }
.about { margin-top: .25rem; }
sup { font-size: .75em; line-height: 0; }
.label { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }
.fold { margin-top: 2rem; }
.fold > summary { display: inline-block; padding-right: 1.6rem; font-weight: 600; }
.fold > summary::after { right: .2rem; top: .45rem; }
.curves { display: grid; gap: 2.2rem 2.5rem; margin-top: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
figure { margin: 0; break-inside: avoid; }
.curve figcaption { display: flex; gap: .8rem; align-items: baseline; margin-bottom: .3rem; }
.curve .name { color: var(--ink); font-weight: 600; margin-right: auto; }
svg { display: block; width: 100%; height: auto; font-size: 11px; fill: var(--soft); }
.grid { stroke: var(--rule); }
.line { fill: none; stroke: var(--line); stroke-width: 1.4; stroke-linejoin: round; }
.raw { stroke-width: .8; opacity: .35; }
.dot { fill: var(--line); }
.dot, .hover { stroke: transparent; stroke-width: 7; pointer-events: all; }
.hover { fill: none; }
.pictures { display: flex; flex-wrap: wrap; gap: 2.5rem; margin-top: 1.2rem; }
.pictures figure { max-width: 100%; }
img { display: block; max-width: 100%; height: auto; image-rendering: pixelated; }
.pictures figcaption { margin-top: .6rem; width: 0; min-width: 100%; }
.pictures strong { display: block; color: var(--ink); }
.columns { columns: 21rem; column-gap: 3rem; margin-top: 1rem; }
table { border-collapse: collapse; table-layout: fixed; width: 100%; }
.columns table { margin-bottom: 1.1rem; break-inside: avoid; }
th, td { padding: .1rem 0; text-align: left; vertical-align: top; font-weight: 400; }
th { padding-left: calc(var(--depth) * 1.1rem); padding-right: .6rem; }
.key { width: 12.5rem; }
.group { color: var(--ink); font-weight: 600; }
@media (max-width: 52rem) {
  .head { padding: 0; font-size: 0; }
  .record > summary { display: flex; flex-wrap: wrap; column-gap: .4rem; }
  .record .name { flex: 1 1 auto; }
  .meta, .about, .estimator { flex: none; width: calc(100% + 2rem); margin-right: -2rem; }
  .score { display: flex; column-gap: .4rem; align-items: baseline; }
  .meta { display: flex; flex-wrap: wrap; column-gap: 1.2rem; }
  .meta > :empty { display: none; }
  .label { position: static; clip-path: none; }
  .key { width: 9.5rem; }
}
@media print {
  body { padding: 0; max-width: none; font-size: 10pt; }
  h2, h3 { break-after: avoid; }
  summary::after { display: none; }
  .record { break-inside: avoid; }
  img { max-height: 14cm; width: auto; }
}
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def page(title: str, parts: Iterable[str]) -> str:
    """The whole document around `parts`, which are HTML; plain ASCII."""
    text = _PAGE.format(title=escape(title), style=_STYLE, body='\n'.join(parts))
    return text.encode('ascii', 'xmlcharrefreplace').decode('ascii')


def table(values: Mapping) -> str:
    """Every field of a nested mapping in a line of its own, indented by its depth."""
    return f'<table><col class="key"><col>{"".join(_lines(values))}</table>'


def columns(values: Mapping) -> str:
    """The same in as many columns as there is room for, each group of fields kept together."""
    groups = [{key: part} for key, part in values.items() if _is_group(part)]
    plain = {key: part for key, part in values.items() if not _is_group(part)}
    tables = ''.join(table(part) for part in (plain, *groups) if part)
    return f'<div class="columns">{tables or "<p>nothing</p>"}</div>'


def picture(title: str, caption: str, path: Path) -> str:
    """A `<figure>` that holds the PNG itself; a small one is enlarged a whole number of times.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not a PNG.
    """
    data = path.read_bytes()
    if data[:8] != b'\x89PNG\r\n\x1a\n' or len(data) < 24:
        raise ValueError(f'{path} is not a PNG')
    width, height = struct.unpack('>II', data[16:24])
    times = max(1, _WIDE // max(width, 1))
    encoded = base64.b64encode(data).decode('ascii')
    return (
        f'<figure><img alt="{escape(title)}" width="{width * times}" height="{height * times}" '
        f'src="data:image/png;base64,{encoded}">\n'
        f'<figcaption><strong>{escape(title)}</strong>{escape(caption)}</figcaption></figure>'
    )


def words(value) -> str:
    """A value of JSON as a person writes it; lists with commas. Not escaped."""
    if value is None or isinstance(value, bool):
        return {None: 'none', True: 'yes', False: 'no'}[value]
    if isinstance(value, list | tuple):
        return ', '.join(map(words, value)) or 'none'
    return str(value)


def _is_group(value) -> bool:
    """Whether a value takes lines of its own."""
    if isinstance(value, list | tuple):
        return any(isinstance(part, Mapping) for part in value)
    return isinstance(value, Mapping) and bool(value)


def _lines(values: Mapping, depth: int = 0) -> Iterator[str]:
    for key, value in values.items():
        start = f'<tr><th scope="row" style="--depth: {depth}"'
        if not _is_group(value):
            shown = escape(words(value or None if isinstance(value, Mapping) else value))
            yield f'{start}>{escape(str(key))}</th><td>{shown}</td></tr>\n'
            continue
        parts = value
        if not isinstance(value, Mapping):
            parts = dict(enumerate(value, 1))
            if len(value) == 1:
                (parts,) = value
        yield f'{start} class="group" colspan="2">{escape(str(key))}</th></tr>\n'
        yield from _lines(parts, depth + 1)
