"""The overview as a page: HTML made here, every value escaped, nothing fetched from
elsewhere.

It is whole without a script; the script only asks for the same page's middle again
every two seconds. The policy admits that one script and that one style by their
hashes, so what a name contains can never run.
"""

import base64
import hashlib
import html
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #888; --good: #1a8f3c;
  --warn: #b26a00; --bad: #d0312d; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 62rem;
  padding: 1rem; }
header { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline; }
h1 { font-size: 1.4rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 1.8rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
h3 .dim { font-weight: normal; }
section { border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem;
  margin: 0 0 .8rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin-top: .4rem; }
th { text-align: left; font-weight: 500; color: var(--dim); }
th, td { padding: .15rem 1rem .15rem 0; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
td.w { white-space: nowrap; } td.t { overflow-wrap: break-word; }
ol { margin: .4rem 0; padding-left: 1.6rem; } ol li.done { color: var(--dim); }
ol li.now { font-weight: 600; } ul { margin: .5rem 0 0; padding: 0;
  list-style: none; overflow-wrap: anywhere; }
p { margin: .3rem 0; } .dim { color: var(--dim); } code { font-size: .9em; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
.banner { border: 1px solid currentColor; border-radius: .5rem; padding: .4rem .8rem;
  margin: .6rem 0; font-weight: 500; }
meter { width: min(7rem, 12vw); height: .9rem; vertical-align: middle; }
nav { margin-top: 2rem; border-top: 1px solid var(--line); padding-top: .5rem;
  color: var(--dim); } nav a { margin-right: 1rem; color: inherit; }
"""
SCRIPT = """
"use strict";
const main = document.querySelector("main"), seen = document.getElementById("seen");
let shown = "";
async function look() {
  if (!document.hidden) {
    try {
      const answer = await fetch("overview.json?html=1", {cache: "no-store"});
      if (!answer.ok) throw new Error("status " + answer.status);
      const made = (await answer.json()).html;
      if (made !== shown) { main.innerHTML = made; shown = made; }
      seen.textContent = "as of " + new Date().toLocaleTimeString();
      seen.className = "dim";
    } catch (error) {
      seen.textContent = "the router does not answer: " + error.message;
      seen.className = "bad";
    }
  }
  setTimeout(look, 2000);
}
setTimeout(look, 2000);
"""


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)};"
        " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
PHASES = {"promoted": "good", "rolled_back": "bad", "failed": "bad",
          "holding": "warn", "awaiting_approval": "warn"}  # fmt: skip
ENDED = ("promoted", "rolled_back", "failed")
VERDICTS = {"pass": "good", "fail": "bad", "error": "bad"}


class Html(str):
    """Text that is HTML already. Everything else is escaped where it is put in."""

    __slots__ = ()


def overview_routes(read: Callable[[], Mapping[str, Any]]) -> tuple[Route, ...]:
    """The page, and what is on it as JSON."""

    def page(_: Request) -> Response:
        return Response(page_of(read()), headers=HEADERS, media_type="text/html")

    def values(request: Request) -> Response:
        seen = dict(read())
        if "html" in request.query_params:
            seen["html"] = body_of(seen)
        return JSONResponse(seen, headers=HEADERS)

    return Route("/", page), Route("/overview.json", values)


def page_of(seen: Mapping[str, Any]) -> str:
    """The whole page."""
    links = [
        e("a", path, href=path)
        for path in ("overview.json", "metrics", "healthz", "readyz")
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,"><title>inference router</title>'
        f"<style>{STYLE}</style></head><body>"
        f"<header><h1>inference router</h1>{e('span', seen['version'], cls='dim')}"
        '<span id="seen" class="dim"></span></header>'
        f"<main>{body_of(seen)}</main><nav>{''.join(links)}</nav>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def body_of(seen: Mapping[str, Any]) -> str:
    """What changes while one looks."""
    return "".join((*_state(seen), *_rollouts(seen), *_models(seen), *_flags(seen)))


def e(name: str, *content: Any, cls: str = "", **attributes: Any) -> Html:
    """An element. What is not `Html` is escaped, attributes always."""
    given = {"class": cls, **attributes} if cls else attributes
    marks = "".join(f' {key}="{html.escape(str(v))}"' for key, v in given.items())
    inside = "".join(
        one if isinstance(one, Html) else html.escape(str(one)) for one in content
    )
    return Html(f"<{name}{marks}>{inside}</{name}>")


def _state(seen: Mapping[str, Any]) -> list[Html]:
    made = [
        e("p", "configuration ", e("code", seen["config_revision"] or "none"),
          ", table ", e("code", seen["table_revision"] or "none"), cls="dim"),
    ]  # fmt: skip
    said = [("bad", f"not ready: {reason}") for reason in seen["unready_reasons"]]
    if seen["is_ready"] and not seen["was_last_reload_successful"]:
        said.append(
            ("bad", "the last configuration was refused: the one before serves")
        )
    if seen["is_stalled"]:
        said.append(("bad", "the controller is stalled: no rollout grows"))
    if seen["waiting"]:
        said.append(
            ("bad", f"{seen['waiting']} changes wait to be stored: no rollout grows")
        )
    if seen["is_frozen"]:
        said.append(("warn", "frozen: no rollout grows"))
    return made + [e("p", words, cls=f"banner {kind}") for kind, words in said]


def _rollouts(seen: Mapping[str, Any]) -> list[Html]:
    made = [e("h2", "Rollouts")]
    if not seen["rollouts"]:
        made.append(e("p", "There is none.", cls="dim"))
    return made + [_rollout(one) for one in seen["rollouts"]]


def _rollout(one: Mapping[str, Any]) -> Html:
    phase = one["phase"].replace("_", " ")
    states = [word for word in ("paused", "off") if one[f"is_{word}"]]
    marks = e("span", phase, cls=PHASES.get(one["phase"], ""))
    more = f" ({', '.join(states)})" if states else ""
    what = f" · {one['strategy']} of {one['model']}, attempt {one['attempt']}"
    whom = f", for {one['audience']}" if one["audience"] else ""
    parts = [
        e("h3", one["scope"], " · ", marks, more, e("span", what + whom, cls="dim"))
    ]
    waves = one["waves"]
    if len(waves) > 1:
        at = min(one["wave"], len(waves) - 1)  # past the last one when all are over
        parts.append(e("p", f"wave {at + 1} of {len(waves)}: {waves[at]}"))
    if one["waits_for"]:
        parts.append(e("p", "waits: ", one["waits_for"], cls="warn"))
    if one["next_step_in_s"] is not None and one["phase"] not in ENDED:
        parts.append(
            e("p", f"this step has run {words_of(one['elapsed_s'])}, needs at least"
              f" {words_of(one['next_step_in_s'])} more", cls="dim")
        )  # fmt: skip
    parts += [_steps(one), _shares(one["shares"])]
    if one["verdicts"]:
        parts.append(_verdicts(one["verdicts"]))
    return e("section", *parts)


def _steps(one: Mapping[str, Any]) -> Html:
    is_over, has_ended = one["phase"] == "promoted", one["phase"] in ENDED
    items = []
    for at, step in enumerate(one["steps"]):
        if is_over or at < one["step"]:
            items.append(e("li", step, " ✓", cls="done"))
        else:
            items.append(
                e("li", step, cls="now" if at == one["step"] and not has_ended else "")
            )
    return e("ol", *items)


def _shares(shares: list[Mapping[str, Any]]) -> Html:
    rows = [
        _row(
            ("w", f"{one['version']}" + (" (stable)" if one["is_stable"] else "")),
            ("n", percent(one["asked_bp"])),
            ("n", percent(one["claimed_bp"])),
            ("n", f"{one['requests_per_s']:.1f}"),
        )
        for one in shares
    ]
    return _table((("w", "version"), ("n", "asked for"), ("n", "holds"),
                   ("n", "requests/s")), rows)  # fmt: skip


def _verdicts(verdicts: list[Mapping[str, Any]]) -> Html:
    items = []
    for one in verdicts:
        what = (
            one["name"]
            if one["role"] == one["name"]
            else f"{one['role']} {one['name']}"
        )
        whose = f" of {one['version']}" if one["version"] else ""  # 0: of the rollout
        within = f" in {one['slice']}" if one["slice"] else ""
        dry = " (dry run)" if one["is_dry_run"] else ""
        mark = e("span", one["verdict"], cls=VERDICTS.get(one["verdict"], "warn"))
        about = e("span", f" {what}{whose}{within}{dry}: ", cls="dim")
        items.append(e("li", mark, about, one["reason"]))
    return e("ul", *items)


def _models(seen: Mapping[str, Any]) -> list[Html]:
    made = [e("h2", "Models")]
    for model in seen["models"]:
        rows = [_version(one) for one in model["versions"]]
        heads = (("w", "version"), ("w", "state"), ("n", "requests"),
                 ("n", "requests/s"), ("w", "share now"))  # fmt: skip
        made.append(e("section", e("h3", model["name"]), _table(heads, rows)))
    return made


def _version(one: Mapping[str, Any]) -> Html:
    names = [name for name in one["names"] if name != str(one["version"])]
    words = f"{one['version']}" + (f" {', '.join(names)}" if names else "")
    share = one["share"]
    meter = (
        e("span", "–", cls="dim")
        if share is None
        else e(
            "span",
            e("meter", min=0, max=1, value=f"{share:.4f}"),
            f" {share * 100:.1f} %",
        )
    )
    return _row(
        ("w", words + (" (stable)" if one["is_stable"] else "")),
        ("t", version_state(one)),
        ("n", f"{one['requests']:,}"),
        ("n", f"{one['requests_per_s']:.1f}"),
        ("w", meter),
    )


def version_state(one: Mapping[str, Any]) -> Html:
    """What a version is doing, and why not."""
    if one["is_disabled"]:
        return e("span", "disabled", cls="warn")
    if one["is_ready"]:
        return e("span", "ready", cls="good")
    return e("span", f"not ready: {one['reason'] or 'taken out'}", cls="bad")


def _flags(seen: Mapping[str, Any]) -> list[Html]:
    if not seen["flags"]:
        return []
    rows = [
        _row(("t", name), ("w", "on" if on else e("span", "off", cls="warn")))
        for name, on in seen["flags"].items()
    ]
    return [e("h2", "Flags"), e("section", _table((("t", "flag"), ("w", "")), rows))]


def _row(*cells: tuple[str, Any]) -> Html:
    return e("tr", *(e("td", content, cls=kind) for kind, content in cells))


def _table(heads: tuple[tuple[str, str], ...], rows: list[Html]) -> Html:
    head = e("tr", *(e("th", words, cls=kind) for kind, words in heads))
    return e("div", e("table", e("thead", head), e("tbody", *rows)), cls="wide")


def percent(basis_points: int) -> str:
    return f"{basis_points / 100:g} %"


def words_of(seconds: float) -> str:
    """A time in its two largest units."""
    rest, parts = round(seconds), []
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "0 s"
