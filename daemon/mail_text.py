"""What a mail says: subject, plain text and HTML, in French or English.

Everything that comes from outside (names, reasons, item ids) is put on one line of printable
characters, and escaped where it goes into HTML.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from html import escape
from textwrap import shorten
from typing import Final
from urllib.parse import quote

from daemon.feeds import explained, size, standing, title
from schemas.alert import Alert
from schemas.subscription import Rhythm, Subscription

LONGEST_SUBJECT: Final = 150
"""Characters; mail programs show fewer."""
URL_CHARACTERS: Final = ":/?#[]@!$&'()*+,;=%"
"""What an address keeps; the rest is percent-encoded, so that it may stand in a header."""
MORE_WORDS: Final[dict[str, dict[str, str]]] = {
    "fr": {
        "colon": "\N{NO-BREAK SPACE}: ",
        "percent": "{:.0f}\N{NO-BREAK SPACE}%",
        "where": "Département",
        "area": "Surface",
        "probability": "Probabilité",
        "looks": "Observations",
        "seen": "Vu sur le terrain",
        "seen_from": "du {first} au {last}",
        "known": "Connu du service",
        "acquisitions": "Images après",
        "reference": "Image avant",
        "sensors": "Capteurs",
        "detector": "Détecteur",
        "rank": "Importance",
        "reason": "Motif",
        "id": "Alerte",
        "chips": "Images avant et après",
        "feed": "Flux de l'abonnement",
        "subscription": "Abonnement",
        "one": "{n} alerte",
        "many": "{n} alertes",
        Rhythm.IMMEDIATE: "Alertes",
        Rhythm.DAILY: "Résumé du jour",
        Rhythm.WEEKLY: "Résumé de la semaine",
        "map": "Carte de l'occupation du sol, contour de l'alerte en rouge",
        "maps": "Carte de l'occupation du sol, contours des alertes en rouge, numérotés comme "
        "dans le tableau",
        "trial": "Message d'essai",
        "trial_text": "Les alertes de cet abonnement arriveront à cette adresse.",
    },
    "en": {
        "colon": ": ",
        "percent": "{:.0f}%",
        "where": "Département",
        "area": "Area",
        "probability": "Probability",
        "looks": "Looks",
        "seen": "Seen on the ground",
        "seen_from": "from {first} to {last}",
        "known": "Known to the service",
        "acquisitions": "Images after",
        "reference": "Image before",
        "sensors": "Sensors",
        "detector": "Detector",
        "rank": "Rank",
        "reason": "Reason",
        "id": "Alert",
        "chips": "Images before and after",
        "feed": "Feed of the subscription",
        "subscription": "Subscription",
        "one": "{n} alert",
        "many": "{n} alerts",
        Rhythm.IMMEDIATE: "Alerts",
        Rhythm.DAILY: "Daily digest",
        Rhythm.WEEKLY: "Weekly digest",
        "map": "Land-cover map, outline of the alert in red",
        "maps": "Land-cover map, outlines of the alerts in red, numbered as in the table",
        "trial": "Test message",
        "trial_text": "The alerts of this subscription will come to this address.",
    },
}
PAGE: Final = (
    '<!DOCTYPE html>\n<html lang="{language}"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    "<title>{heading}</title></head>\n"
    '<body style="margin:0;padding:12px;font:16px/1.4 sans-serif;color:#222;background:#fff">\n'
    '<div style="max-width:640px;margin:0 auto">\n'
    '<h1 style="font-size:20px;margin:0 0 8px">{heading}</h1>\n{body}\n'
    '<p style="font-size:13px;color:#666;border-top:1px solid #ccc;padding-top:8px">{foot}</p>\n'
    "</div></body></html>\n"
)
PICTURE: Final = (
    '<img src="cid:{cid}" alt="{alt}" width="600" '
    'style="display:block;width:100%;max-width:600px;height:auto;margin:12px 0">'
)
TABLE: Final = (
    '<table cellpadding="6" width="100%" '
    'style="border-collapse:collapse;font-size:15px;word-break:break-word">{rows}</table>'
)
ROW: Final = '<tr valign="top" style="border-top:1px solid #ccc">{cells}</tr>\n'


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail without its envelope; ``html`` shows the picture that has ``cid``."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class Links:
    """Addresses in a mail; all None where the service has none of its own."""

    base: str | None

    def _to(self, path: str) -> str | None:
        return f"{quote(self.base.rstrip('/'), safe=URL_CHARACTERS)}{path}" if self.base else None

    def chips(self, alert: Alert) -> str | None:
        """The images before and after."""
        return self._to(f"/alerts/{quote(alert.id, safe='')}/chips.png")

    def feed(self, wanted: Subscription) -> str | None:
        """Everything the subscription asks for."""
        return self._to(f"/feed/subscriptions/{wanted.id}.atom")

    def unsubscribe(self, wanted: Subscription) -> str | None:
        """Where one POST ends the subscription."""
        if not wanted.token:
            return None
        return self._to(f"/subscriptions/{wanted.id}/unsubscribe/{quote(wanted.token, safe='')}")


def latest(alerts: Sequence[Alert]) -> list[Alert]:
    """Each alert once, in its last state, most important first."""
    last = {alert.id: alert for alert in sorted(alerts, key=lambda a: a.sequence)}
    return sorted(last.values(), key=lambda a: (-a.rank, a.id))


def single(alert: Alert, wanted: Subscription, links: Links, *, cid: str) -> Letter:
    """One alert with everything that explains it."""
    language, heading = wanted.language, title(alert, wanted.language)
    words, facts = MORE_WORDS[language], _facts(alert, language)
    told, chips = explained(alert, language), links.chips(alert)
    lines = [heading, "", told, "", *(f"{name}{words['colon']}{value}" for name, value in facts)]
    if chips:
        lines.append(f"{words['chips']}{words['colon']}{chips}")
    rows = "".join(
        ROW.format(cells=f'<td style="color:#666">{escape(name)}</td><td>{escape(value)}</td>')
        for name, value in facts
    )
    body = [
        f"<p>{escape(told)}</p>",
        PICTURE.format(cid=cid, alt=escape(words["map"])),
        TABLE.format(rows=rows),
        f"<p>{_anchor(chips, words['chips'])}</p>" if chips else "",
    ]
    return _letter(f"{heading}, {wanted.name}", heading, lines, body, wanted, links)


def digest(alerts: Sequence[Alert], wanted: Subscription, links: Links, *, cid: str) -> Letter:
    """Several alerts (as ``latest`` gives them): counts, a picture, a numbered table."""
    language, count = wanted.language, len(alerts)
    words = MORE_WORDS[language]
    number = words["one" if count == 1 else "many"].format(n=count)
    heading = f"{words[wanted.rhythm]}{words['colon']}{number}"
    kinds = Counter(standing(alert, language) for alert in alerts)
    counts = [f"{name}{words['colon']}{n}" for name, n in kinds.most_common()]
    lines, rows = [heading, *counts], _head("№", words["id"], words["area"], words["probability"])
    for place, alert in enumerate(alerts, start=1):
        told, more = explained(alert, language), _short(alert, language)
        chips, certain = links.chips(alert), words["percent"].format(100 * alert.probability)
        name, area = standing(alert, language), size(alert)
        lines += ["", f"{place}. {name}, {area}", f"   {told}", f"   {more}"]
        lines += [f"   {words['chips']}{words['colon']}{chips}"] if chips else []
        link = f"<br>{_anchor(chips, words['chips'])}" if chips else ""
        rows += ROW.format(
            cells=f"<td>{place}</td><td><b>{escape(name)}</b><br>"
            f"<small>{escape(told)}<br>{escape(more)}{link}</small></td>"
            f'<td align="right" nowrap>{escape(area)}</td><td align="right">{escape(certain)}</td>'
        )
    body = [
        f"<p>{'<br>'.join(map(escape, counts))}</p>",
        PICTURE.format(cid=cid, alt=escape(words["maps"])),
        TABLE.format(rows=rows),
    ]
    return _letter(f"{heading}, {wanted.name}", heading, lines, body, wanted, links)


def trial(wanted: Subscription, links: Links) -> Letter:
    """A test message."""
    words = MORE_WORDS[wanted.language]
    heading, told = words["trial"], words["trial_text"]
    body = [f"<p>{escape(told)}</p>"]
    return _letter(f"{heading}, {wanted.name}", heading, [heading, "", told], body, wanted, links)


def one_line(text: str) -> str:
    """Printable characters with single spaces between them: nothing that ends a header line or
    turns the direction of writing."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _letter(
    subject: str,
    heading: str,
    lines: Sequence[str],
    body: Sequence[str],
    wanted: Subscription,
    links: Links,
) -> Letter:
    words, feed = MORE_WORDS[wanted.language], links.feed(wanted)
    whose = f"millesimed. {words['subscription']} {wanted.id}, {one_line(wanted.name)}"
    foot = [whose, *([f"{words['feed']}{words['colon']}{feed}"] if feed else [])]
    marked = [escape(whose), *([_anchor(feed, words["feed"])] if feed else [])]
    return Letter(
        shorten(one_line(subject), LONGEST_SUBJECT, placeholder="…"),
        "\n".join([*lines, "", "-- ", *foot, ""]),
        PAGE.format(
            language=wanted.language,
            heading=escape(heading),
            body="\n".join(part for part in body if part),
            foot="<br>".join(marked),
        ),
    )


def _facts(alert: Alert, language: str) -> list[tuple[str, str]]:
    """Names and values of what explains an alert."""
    words = MORE_WORDS[language]
    seen = words["seen_from"].format(first=alert.seen_first, last=alert.seen_last)
    facts = [
        ("id", f"{alert.id}.{alert.sequence}"),
        ("reason", one_line(alert.reason or "")),
        ("where", alert.departement),
        ("area", size(alert)),
        ("probability", words["percent"].format(100 * alert.probability)),
        ("looks", str(alert.looks)),
        ("seen", seen),
        ("known", _known(alert)),
        ("acquisitions", one_line(", ".join(alert.acquisitions))),
        ("reference", one_line(alert.reference_acquisition or "")),
        ("sensors", ", ".join(sorted({s.value for s in alert.sensors}))),
        ("detector", one_line(alert.detector)),
        ("rank", f"{alert.rank:.0f}"),
    ]
    return [(words[name], value) for name, value in facts if value]


def _short(alert: Alert, language: str) -> str:
    """What a digest says of an alert beside its explanation."""
    words, colon = MORE_WORDS[language], MORE_WORDS[language]["colon"]
    reason, rank = one_line(alert.reason or ""), f"{alert.rank:.0f}"
    said = [("reason", reason), ("known", _known(alert)), ("rank", rank)]
    return "; ".join(f"{words[name]}{colon}{value}" for name, value in said if value)


def _known(alert: Alert) -> str:
    return f"{alert.known_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _head(*names: str) -> str:
    cells = "".join(f'<th align="left" style="font-size:13px">{escape(n)}</th>' for n in names)
    return f"<tr>{cells}</tr>\n"


def _anchor(url: str, text: str) -> str:
    return f'<a href="{escape(url)}">{escape(text)}</a>'
