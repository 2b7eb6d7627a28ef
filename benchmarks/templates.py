"""How long it takes to make a message from a template: HTML of 2 KB with a style sheet and a list of five items."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.race import Answer, Goal, Table, shown
from smtp_async import Message, Templates

_STYLES: Final = """\
body { font-family: sans-serif; color: #222; margin: 0 } .box { max-width: 600px; margin: 0 auto; padding: 16px }
h1 { font-size: 22px; color: #0a58ca } p { line-height: 1.5 } table { width: 100%; border-collapse: collapse }
td { padding: 6px; border-bottom: 1px solid #ddd } .price { text-align: right } .foot { color: #777; font-size: 12px }
.button { display: inline-block; background: #0a58ca; color: #fff; padding: 10px 18px; text-decoration: none }
"""
_PAGE: Final = """\
<!doctype html><html><head><meta charset="utf-8"><style>{% include "mail.css" %}</style></head><body><div class="box">
<img src="logo.png" alt="The shop"><h1>Thank you, {{ name }}</h1>
<p>Your order <b>{{ number }}</b> has been received and will be sent to you within three working days.</p>
<table>{% for item in items %}
<tr><td>{{ item.name }}</td><td>{{ item.count }}</td><td class="price">{{ item.price }}</td></tr>
{% endfor %}</table>
<p><a class="button" href="{{ url }}">See your order</a></p>
<p>You can change the address or cancel the order until it has left our house. After that you have thirty days to send
back what you do not want to keep, at our cost, with the label that is in the parcel.</p>
<p class="foot">You receive this mail because you ordered in our shop. Questions? Just answer it.</p></div></body>
"""
_TEXT: Final = """\
Thank you, {{ name }}. Your order {{ number }} has been received:

{% for item in items %}
{{ item.count }} {{ item.name }}: {{ item.price }}
{% endfor %}

See your order: {{ url }}
"""
_SUBJECT: Final = "Your order {{ number }}"
#: Messages of a round, and how many a second we want.
_ROUND: Final = 40
_WANTED: Final = 5000.0


def run(*, quick: bool = False) -> Answer:
    """Make messages in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, contents in (
            ("mail.css", _STYLES),
            ("both.html", _PAGE),
            ("only.html", _PAGE),
            ("both.txt", _TEXT),
        ):
            (folder / file).write_text(contents, encoding="utf-8")
        for file in ("both.subject.txt", "only.subject.txt"):
            (folder / file).write_text(_SUBJECT, encoding="utf-8")
        (folder / "logo.png").write_bytes(bytes(2000))
        templates = Templates(folder)
        entries: dict[str, Callable[[int], object]] = {
            "text and HTML": lambda number: _made(templates, "both", number),
            "HTML, the text made from it": lambda number: _made(templates, "only", number),
            "text and HTML, as bytes": lambda number: _made(templates, "both", number).as_bytes(),
        }
        times = _raced(entries, 31 if quick else 151)
    table = Table(
        "A message from a template",
        ("what", "µs of CPU", "messages/s"),
        [(what, shown(spent * 1e6), shown(1 / spent)) for what, spent in times.items()],
    )
    goals = [Goal("messages a second from text and HTML", 1 / times["text and HTML"], _WANTED)]
    notes = ["One process, one thread; CPU time of the fastest round."]
    return Answer([table], goals, notes)


def _made(templates: Templates, name: str, number: int) -> Message:
    items = [{"name": f"Thing {one}", "count": one, "price": f"{one}.00 €"} for one in range(5)]
    context: dict[str, Any] = {"name": "Ann & Bob", "number": number, "items": items}
    context["url"] = f"https://shop.example/orders/{number}?from=mail&to=page"
    return templates.message(name, context, sender="Shop <shop@example.com>", to=f"user{number}@example.org")


def _raced(entries: dict[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    """Return the seconds of one message in the fastest round, because other programs of the machine only add to it."""
    spent: dict[str, list[float]] = {what: [] for what in entries}
    for number in range(rounds):
        for what, make in entries.items():
            gc.collect()
            begin = time.process_time()
            for one in range(_ROUND):
                make(number * _ROUND + one)
            spent[what].append((time.process_time() - begin) / _ROUND)
    return {what: min(values) for what, values in spent.items()}
