"""The style sheet of the report page."""

STYLE = """
:root { color-scheme: light dark;
  --ink: #1d2329; --soft: #5b6570; --line: #d9dee3; --page: #f5f6f8; --card: #ffffff; --good: #00724f; --bad: #b34700;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #e69f00; --c5: #56b4e9; --c6: #1d2329; }
@media screen and (prefers-color-scheme: dark) { :root {
  --ink: #e6e9ec; --soft: #a3adb7; --line: #3a424a; --page: #14181c; --card: #1d2227; --good: #3cc79a; --bad: #ff9a4d;
  --c0: #4aa8e0; --c1: #f07f2e; --c2: #22b88d; --c6: #e6e9ec; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 .75rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 0 0 .35rem; overflow-wrap: anywhere; }
p { margin: .4rem 0; }
.soft, figcaption, caption { color: var(--soft); font-size: .87rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem; margin: 0 0 1rem; }
.status { display: inline-block; border: 1px solid currentColor; border-radius: 999px; padding: 0 .6rem;
  font-size: .87rem; font-weight: 600; color: var(--soft); white-space: nowrap; }
.status.finished { color: var(--good); }
.status.failed, .status.interrupted { color: var(--bad); }
.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(148px, 1fr)); gap: .75rem; margin: 1rem 0; }
.numbers div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .6rem .8rem; }
dt { color: var(--soft); font-size: .82rem; }
dd { margin: 0; font-size: 1.2rem; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
dd small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 1rem; }
p + h3, .card + h3, ul + h3 { margin-top: 1.2rem; }
figure { margin: 0; }
.charts .card { margin: 0; }
svg { display: block; width: 100%; height: auto; overflow: visible; font-family: inherit; stroke-linejoin: round; }
.scroll { overflow: auto; max-width: 100%; }
.scroll.tall { max-height: 32rem; }
.wide > svg { min-width: 640px; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; list-style: none; margin: 0 0 .3rem; padding: 0;
  font-size: .87rem; }
.legend li { overflow-wrap: anywhere; }
svg.key { display: inline-block; width: 26px; height: 10px; vertical-align: middle;
  margin-right: .3rem; min-width: 0; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .2rem 0; }
th, td { padding: .25rem .7rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { position: sticky; top: 0; background: var(--card); vertical-align: bottom; }
.n { text-align: right; white-space: nowrap; padding-left: .4rem; }
.name { overflow-wrap: anywhere; min-width: 8rem; font-weight: 600; }
thead th.n { white-space: normal; }
.any { overflow-wrap: anywhere; min-width: 10rem; white-space: pre-wrap; }
.none { color: var(--soft); }
pre { margin: 0; overflow: auto; font: .84rem/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .87em; }
summary { cursor: pointer; padding: .2rem 0; }
ul.notes { margin: .4rem 0; padding-left: 1.2rem; }
@media print {
  body { background: none; font-size: 10pt; } main { max-width: none; padding: 0; }
  .card, .numbers div, figure, tr { break-inside: avoid; } .card.long { break-inside: auto; }
  h2, h3, h2 + p, h3 + p, .card.long > p { break-after: avoid; }
  .scroll, .scroll.tall, pre { overflow: visible; max-height: none; } pre { white-space: pre-wrap; }
  thead th { position: static; } .wide svg { min-width: 0; }
  .charts { grid-template-columns: 1fr 1fr; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
