"""The page's style sheet: light and dark, wide and narrow, screen and paper.

Colours are those of Okabe and Ito (2008), which people with colour-blindness can tell apart. Text in charts is in units
of the canvas (`frame.py`): the smaller a chart is shown, the larger its text is drawn.
"""

from autoprune.drawing.markup import Markup, tag

LIGHT = """
--page:#fff;--ink:#1a1c1e;--muted:#5b6168;--line:#e2e4e7;--soft:#f5f6f7;--warn:#fdf1dc;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#e69f00;--c5:#56b4e9;--c6:#1a1c1e;--c7:#b8ab00;
"""

DARK = """
--page:#131517;--ink:#e7e7e4;--muted:#9ba1a8;--line:#2c3136;--soft:#1b1e21;--warn:#33290f;
--c0:#56b4e9;--c1:#e69f00;--c2:#00b384;--c3:#cc79a7;--c4:#d55e00;--c5:#0072b2;--c6:#e7e7e4;--c7:#f0e442;
"""

COLOURS = "".join(f".c{i}{{--c:var(--c{i})}}" for i in range(8))

CHARTS = """
figure{margin:0;min-width:0;max-width:620px;break-inside:avoid}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{font-size:12.5px;fill:var(--muted);font-variant-numeric:tabular-nums}
svg .title{fill:var(--ink)}
svg .halo{paint-order:stroke;stroke:var(--page);stroke-width:4px;stroke-linejoin:round;fill:var(--ink)}
.grid{stroke:var(--line)} .axis{stroke:var(--muted)}
.reference{stroke:var(--ink);stroke-dasharray:5 4;opacity:.75}
.line,.front{fill:none;stroke:var(--c);stroke-width:2.2px;stroke-linejoin:round}
.second .line{stroke-dasharray:7 4}
.front{stroke:var(--ink);stroke-width:1.3px}
.band{fill:var(--c);opacity:.16}
circle{fill:var(--c)}
.seen circle{opacity:.5} .onfront circle{stroke:var(--page)}
.probe{--c:var(--muted)} .probe circle{opacity:.42}
.best circle{stroke:var(--page);stroke-width:1.5px}
.whole{fill:var(--c);opacity:.17} .part,.cells{fill:var(--c)}
.unknown{fill:none;stroke:var(--line)} .overflow{fill:var(--ink)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 20px;margin:4px 0 0;padding:0;font-size:14px}
.key,.shade{display:inline-block;width:12px;height:12px;border-radius:2px;background:var(--c);margin-right:7px}
.key.second{background:none;border:2px dashed var(--c)} .key.probe{opacity:.6} .key.seen{opacity:.6}
.shade{margin:0;border-radius:0;width:18px;vertical-align:-1px}
"""
"""The rules of charts and legends, which pages and notebooks share."""

STYLE = f"""
:root{{color-scheme:light dark;{LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{DARK}}}}}
@media print{{:root{{{LIGHT}color-scheme:light}}}}
{COLOURS}
*{{box-sizing:border-box}}
body{{margin:0;background:var(--page);color:var(--ink);-webkit-text-size-adjust:100%;
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}}
main,header,footer{{max-width:1120px;margin:0 auto;padding:0 24px}}
header{{padding-top:44px}}
footer{{padding-bottom:48px;color:var(--muted);font-size:14px}}
h1{{font-size:30px;line-height:1.2;font-weight:650;letter-spacing:-.015em;margin:0 0 6px;overflow-wrap:anywhere}}
h2{{font-size:20px;line-height:1.3;font-weight:650;margin:0 0 4px}}
h3{{font-size:15px;font-weight:600;margin:0 0 8px}}
p{{margin:0 0 12px;max-width:74ch}}
.kicker,.note,.facts small,.description{{color:var(--muted)}}
.kicker{{font-size:14px;margin:0 0 4px}}
.note{{font-size:14px}}
.lead{{overflow-wrap:anywhere}}
.warning{{background:var(--warn);border-left:4px solid var(--c4);padding:12px 16px;margin:20px 0 0;max-width:none}}
section{{border-top:1px solid var(--line);margin-top:36px;padding-top:26px}}
.facts{{display:grid;grid-template-columns:repeat(auto-fill,minmax(196px,1fr));gap:24px 28px;margin:30px 0 0;padding:0}}
.facts div{{border-top:2px solid var(--ink);padding-top:8px;min-width:0}}
.facts dt{{font-size:14px;color:var(--muted);overflow-wrap:anywhere}}
.facts dd{{margin:0;font-size:27px;line-height:1.25;font-weight:600;font-variant-numeric:tabular-nums}}
.facts small{{display:block;font-size:14px;line-height:1.4;font-weight:400;margin-top:2px;overflow-wrap:anywhere}}
.charts{{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr));gap:28px 40px;
margin-top:18px}}
{CHARTS}.scale,.after{{margin-top:10px}}
.scroll{{overflow-x:auto;margin-top:14px}}
table{{border-collapse:collapse;font-size:15px;font-variant-numeric:tabular-nums}}
th,td{{text-align:right;padding:6px 0 6px 26px;border-bottom:1px solid var(--line);white-space:nowrap;
vertical-align:top}}
th{{font-weight:600}} thead th{{color:var(--muted);font-weight:500;font-size:14px;vertical-align:bottom}}
th:first-child,td:first-child,.words td,.words th{{text-align:left}}
table th:first-child{{padding-left:0}}
tbody th{{font-weight:500}}
.words td{{white-space:normal;overflow-wrap:anywhere;min-width:9ch}}
.words .set{{font-weight:650}}
.description{{font-size:14px}}
.meter{{display:inline-block;width:120px;height:9px;background:var(--line);margin-left:12px}}
.meter i{{display:block;height:100%;background:var(--c)}}
code,pre{{font:13.5px/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}}
pre{{background:var(--soft);padding:14px 16px;margin:12px 0 0;overflow-x:auto;border-radius:4px}}
:focus-visible{{outline:2px solid var(--c0);outline-offset:2px}}
@media (max-width:1099px){{svg text{{font-size:14px}}}}
@media (max-width:927px){{svg text{{font-size:12px}}}}
@media (max-width:620px){{svg text{{font-size:13px}}}}
@media (max-width:700px){{
main,header,footer{{padding:0 16px}} header{{padding-top:26px}}
h1{{font-size:25px}} .charts{{grid-template-columns:1fr}}
.facts{{grid-template-columns:repeat(auto-fill,minmax(148px,1fr));gap:20px}} .facts dd{{font-size:23px}}
th,td{{padding-left:14px}} .meter{{width:38px;margin-left:6px}} .description,.words thead{{display:none}}}}
@media (max-width:480px){{svg text{{font-size:17px}}}}
@media print{{body{{font-size:11pt}} main,header,footer{{max-width:none;padding:0}} section{{margin-top:22px}}
.scroll,pre{{overflow:visible}} pre{{white-space:pre-wrap}} tr,.facts div{{break-inside:avoid}}
h2,h3,.note{{break-after:avoid}}
.charts{{grid-template-columns:1fr 1fr}} svg text{{font-size:15px}}
.meter,.key,.shade,.meter i{{print-color-adjust:exact;-webkit-print-color-adjust:exact}}}}
"""


def _within(root: str, rules: str) -> str:
    """The rules, for what is inside of an element alone."""
    found = [rule.partition("{") for rule in rules.replace("\n", "").split("}") if rule]
    return "".join(
        f"{','.join(f'{root} {selector}' for selector in selectors.split(','))}{{{body}}}"
        for selectors, _, body in found
    )


TABLES = """
table{border-collapse:collapse;font:inherit;font-variant-numeric:tabular-nums;margin:0}
th,td{text-align:right;padding:3px 0 3px 22px;white-space:nowrap;border:0}
th:first-child,td:first-child{text-align:left;padding-left:0}
.note{color:var(--muted);font-size:90%;margin:6px 0}
.charts{display:flex;flex-wrap:wrap;gap:12px 28px}
figure{flex:0 1 380px}
h3{font-size:100%;margin:6px 0}
"""

NOTEBOOK = tag(
    "style",
    Markup(
        f".autoprune{{{LIGHT}--page:transparent;--ink:var(--jp-ui-font-color0,currentcolor);--soft:transparent;"
        "--muted:var(--jp-ui-font-color2,#777);--line:var(--jp-border-color2,#8884)}"
        + COLOURS
        + _within(".autoprune", CHARTS + TABLES)
    ),
)
"""The style of what is shown in a notebook. It follows the notebook's colours and changes nothing else on its page."""
