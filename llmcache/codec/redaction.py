"""Masking what tells who somebody is, or opens a door, in a request that people may read.

``LLMCACHE["STORE_REQUESTS"] = "redacted"``. It knows the shapes below and no names: it is a net,
and no proof. What is sent to the model, and what that answers, stays as it is.

- e-mail addresses (RFC 5321, section 4.1.2, and those in other scripts, RFC 6531)
- telephone numbers: international ones (ITU-T E.164), and national ones as they are written
- IBANs whose check digits are right (ISO 13616; ISO 7064, MOD 97-10)
- numbers of cards whose check digit is right (ISO/IEC 7812-1, annex B)
- bearer tokens (RFC 6750), JSON Web Tokens (RFC 7519), and keys that begin as services have them
"""

from __future__ import annotations

import re
from collections.abc import Callable
from string import ascii_letters
from typing import Any, Final

# (nothing is looked for from the middle of a word on, so that a long text takes no longer for it)
TOKEN: Final = re.compile(
    r"""(?<![\w-])(?:
      (?P<scheme>(?i:bearer)\s{1,8})[\w.~+/-]{8,4096}=*
    | eyJ[\w-]{5,4096}\.[\w-]{5,16384}(?:\.[\w-]{0,4096})?
    | (?:sk|pk|rk|ghp|gho|ghu|ghs|github_pat|glpat|xox[abeprs]|hf|gsk)[_-]
      (?=[A-Za-z_-]{0,64}\d)[\w-]{16,512}
    | (?:AKIA|ASIA)[A-Z0-9]{16} | AIza[\w-]{35}
    )(?![\w-])""",
    re.VERBOSE,
)
ADDRESS: Final = re.compile(r"(?<![\w.+%'-])[\w.+%'-]{1,64}@(?:[\w-]{1,63}\.){1,8}[\w-]{2,63}")
IBAN: Final = re.compile(
    r"""(?<!\w)[A-Za-z]{2}\d{2}(?:
      [A-Za-z0-9]{11,30} | (?:[ -][A-Za-z0-9]{4}){2,7}(?:[ -][A-Za-z0-9]{1,3})?
    )(?!\w)""",
    re.VERBOSE,
)
GROUP: Final = re.compile(r"\w+")
SHORTEST_IBAN: Final = 15
# A is 10, B is 11, ...; what stands between the groups does not count.
AS_NUMBERS: Final = str.maketrans(
    {each: str(int(each, 36)) for each in ascii_letters} | {" ": "", "-": ""}
)
CARD: Final = re.compile(r"(?<![\w.])\d(?:[ -]?\d){12,18}(?!\w)")
PHONE: Final = re.compile(
    r"""(?<![\w.+-])(?:
      (?:\+|00)[1-9](?:[ .()/-]{0,2}\d){6,13}
    | (?!\d{1,2}[./-]\d{1,2}[./-]\d{2,4}(?!\d))\(?0\d{1,4}\)?(?:[ ./-]{0,2}\d){5,9}
    | \(?[2-9]\d{2}\)?[ .-]\d{3}[ .-]\d{4}
    )(?![\w-])""",
    re.VERBOSE,
)


def redacted(value: Any) -> Any:
    """What JSON says, with all that is known masked in its texts and names."""
    if isinstance(value, str):
        return _masked(value)
    if isinstance(value, list):
        return [redacted(each) for each in value]
    if isinstance(value, dict):
        return {_masked(name): redacted(each) for name, each in value.items()}
    return value


def _masked(text: str) -> str:
    for pattern, mask in MASKS:
        text = pattern.sub(mask, text)
    return text


def _token(match: re.Match[str]) -> str:
    return f"{match['scheme'] or ''}[token]"


def _iban(match: re.Match[str]) -> str:
    """Masked as far as it is one: the next words may look like more of it."""
    text = match[0]
    ends = [group.end() for group in GROUP.finditer(text)]
    end = next((end for end in reversed(ends) if _is_iban(text[:end])), 0)
    return "[IBAN]" * bool(end) + text[end:]


def _card(match: re.Match[str]) -> str:
    return "[card]" if _is_card(match[0]) else match[0]


def _is_iban(text: str) -> bool:
    number = (text[4:] + text[:4]).translate(AS_NUMBERS)
    return len(number) >= SHORTEST_IBAN and int(number) % 97 == 1


def _is_card(text: str) -> bool:
    digits = [int(each) for each in reversed(text) if each.isdigit()]
    doubled = [sum(divmod(2 * each, 10)) for each in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


MASKS: Final[list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]]] = [
    (TOKEN, _token),
    (ADDRESS, "[e-mail]"),
    (IBAN, _iban),
    (CARD, _card),
    (PHONE, "[phone]"),
]
