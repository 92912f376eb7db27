"""Numbers that are written as words, English and German, turned into digits.

    in_digits("einundzwanzig Euro, two hundred and fifty, a third off") -> "21 Euro, 250, 33.33 %"

A number is a whole word or chain of words by the grammar of either language, read left to right: small words add up, "hundred"
multiplies what stands before it, "thousand" and "million" close a group. "One" and "ein" alone say too many other things and stay.
Fractions count only beside a word of reduction: "a third off" is a claim, "a third person" is none.
"""

import re
import unicodedata


def _counted(words: str, first: int, step: int = 1) -> dict[str, int]:
    """Each word with its number."""
    return {word: first + step * place for place, word in enumerate(words.split())}


def _any(words: dict[str, int]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_UNITS = _counted("one two three four five six seven eight nine", 1)
_TEENS = _counted("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen", 10)
_TENS = _counted("twenty thirty forty fifty sixty seventy eighty ninety", 20, 10)
_EINER = _counted("ein zwei drei vier fünf sechs sieben acht neun", 1) | {"eins": 1, "fuenf": 5}
_ZEHNER = _counted("zehn zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig", 10, 10) | {
    "dreissig": 30,
    "fuenfzig": 50,
}
_ELF = _counted("elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn", 11) | {
    "zwoelf": 12,
    "fuenfzehn": 15,
}
_GROUPS = {
    "hundred": 100,
    "hundert": 100,
    "thousand": 1_000,
    "tausend": 1_000,
    "million": 1_000_000,
    "millionen": 1_000_000,
}
_VALUES = _UNITS | _TEENS | _TENS | _EINER | _ZEHNER | _ELF | _GROUPS

_BELOW_100 = rf"(?:(?:{_any(_TENS)})(?:[- ](?:{_any(_UNITS)}))?|{_any(_TEENS | _UNITS)})"
_BELOW_1000 = rf"(?:(?:{_BELOW_100}[- ])?hundred(?:[- ](?:and )?{_BELOW_100})?|{_BELOW_100})"
_ENGLISH = rf"(?:(?:{_BELOW_1000}[- ])?thousand(?:,?[- ](?:and )?{_BELOW_1000})?|{_BELOW_1000})(?: million)?|million"
_UNTER_100 = rf"(?:(?:{_any(_EINER)})und(?:{_any(_ZEHNER)})|{_any(_ZEHNER | _ELF | _EINER)})"
_UNTER_1000 = rf"(?:(?:{_any(_EINER | _ELF)})?hundert(?:(?:und)?{_UNTER_100})?|{_UNTER_100})"
_GERMAN = rf"(?:(?:{_UNTER_1000})?tausend(?:(?:und)?{_UNTER_1000})?|{_UNTER_1000})(?: millionen)?|millionen"
_NUMBER = re.compile(rf"(?<!\w)(?:{_ENGLISH}|{_GERMAN})(?!\w)")
_PART = re.compile(_any(_VALUES))
_DOZEN = re.compile(r"(?<!\w)dozen(?!\w)")

_SHARES = {
    "third": 100 / 3,
    "drittel": 100 / 3,
    "quarter": 25.0,
    "viertel": 25.0,
    "fifth": 20.0,
    "fünftel": 20.0,
    "tenth": 10.0,
    "zehntel": 10.0,
}
_TIMES = _UNITS | {"a": 1, "ein": 1, "zwei": 2, "drei": 3, "vier": 4}
_HALF = r"(?P<half>half|(?:die )?hälfte)"
_SHARE = rf"(?P<times{{0}}>{_any(_TIMES)})[- ](?P<share{{0}}>{'|'.join(_SHARES)})s?"
_PRICE = r"(?:usual |regular |normal )?(?:price|cost)"
_LESS = (
    rf"off|less|cheaper|discount|of (?:the|its) {_PRICE}|weniger|günstiger|billiger|reduziert|herabgesetzt|rabatt|nachlass"
    r"|ersparnis|sparen|gespart|des preises|vom preis"
)
_FRACTION = re.compile(
    rf"(?<!\w)(?:{_SHARE.format(1)}|{_HALF})[- ](?:{_LESS})(?!\w)"
    rf"|(?<!\w)half[- ](?:the |its )?{_PRICE}(?!\w)|(?<!\w)halbe[rnms]? preis(?:e[sn]?)?(?!\w)"
    rf"|(?<!\w)(?:save|saving|spare|sparen|spart)(?: sie| um)? (?:{_SHARE.format(2)}|half|die hälfte)(?!\w| an? | the )"
)


def with_numerals(text: str) -> str:
    """The text with signs that are a number but no digit (``Ⅳ``, ``❹``) as digits; before it is brought into one form."""
    return "".join(f" {unicodedata.numeric(sign):g} " if _is_numeral(sign) else sign for sign in text)


def _is_numeral(sign: str) -> bool:
    if unicodedata.category(sign) not in ("Nl", "No") or unicodedata.numeric(sign, -1.0) < 0:
        return False
    return not any(each.isdecimal() for each in unicodedata.normalize("NFKC", sign))


def in_digits(text: str) -> str:
    """The text, in small letters as a reader sees it, with its number words in digits and fractions in percent."""
    return _NUMBER.sub(_digits, _DOZEN.sub("12", _FRACTION.sub(_percent, text)))


def _digits(match: re.Match[str]) -> str:
    """The number; what is 1 stays a word."""
    total = current = 0
    for word in _PART.findall(match[0]):
        value = _VALUES[word]
        if value < 100:
            current += value
        elif value == 100:
            current = max(1, current) * 100
        else:
            total, current = (total + max(1, current)) * value if value > 1_000 else total + max(1, current) * value, 0
    value = total + current
    return match[0] if value == 1 else str(value)


def _percent(match: re.Match[str]) -> str:
    """The share per hundred; a half where no other is named."""
    share, times = match["share1"] or match["share2"], match["times1"] or match["times2"]
    return f"{_TIMES[times] * _SHARES[share]:.4g} %" if share else "50 %"
