"""Groups of English words that readers of copy react to: what a few thousand results cannot teach word by word.

A rare word has hardly any results of its own; as one of a group ("doctor" with "nurse" and "hospital") it has. The
groups are common knowledge of the language, few and wide: what a group is *worth* is learned (``text.py``).

    words(text) -> tuple of words       counts(text) -> {group: words of it in the text}        sentiment(text)

Texts in another language match nothing: every count is 0 and teaches nothing.
"""

import re
from collections import Counter
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+(?:'[^\W\d_]+)?")

GROUPS: dict[str, str] = {
    # who
    "i_we": "i i'm i've i'd i'll me my mine myself we we're we've our ours us",
    "he": "he he's him his himself man men guy guys boy boys dad father son husband brother grandpa uncle king dude mr",
    "she": "she she's her hers herself woman women girl girls mom mother daughter wife sister grandma aunt queen "
    "lady ladies mrs",
    "they": "they they're they've them their theirs themselves people everyone everybody folks",
    "someone": "someone somebody anyone nobody who whoever person one ones",
    "famous": "celebrity celebrities famous star stars actor actress singer hollywood movie movies tv show shows "
    "host comedian jon stewart colbert oprah disney beyonce daily",
    "kids": "kid kids child children teen teens teenager teenagers toddler baby babies student students school "
    "schools teacher teachers college class parents parent family families",
    # feelings
    "positive": "love loves loved lovely happy happiness joy beautiful best better great good awesome amazing "
    "wonderful incredible brilliant perfect fun funny hilarious laugh smile hope inspiring inspire inspiration win "
    "wins won winner cool nice sweet adorable cute proud kind kindness hero heroes gorgeous fantastic excellent "
    "enjoy delight friend friends gift thank thanks safe success celebrate peace dream dreams brave courage "
    "heartwarming",
    "negative": "hate hates hated sad sadness terrible horrible awful bad worse worst ugly wrong fail fails "
    "failed failure lie lies lying problem problems trouble sick scary afraid fear fears scared shame ashamed angry "
    "anger mad pain painful hurt hurts cruel disgusting gross creepy stupid dumb ridiculous crazy insane nasty mean "
    "broken ruin ruined crap damn sucks suck awkward embarrassing depressing disturbing heartbreaking tragic "
    "tragedy",
    "violence": "kill kills killed killing die dies died dead death deadly murder gun guns shot shoot shooting "
    "war wars attack attacked bomb bullet rape raped abuse abused violence violent victim victims beat beaten hit "
    "fight fights fighting prison jail arrested crime police cop cops blood",
    "deep_feeling": "cry cries cried crying tears tear sob heart hearts soul chills goosebumps speechless jaw "
    "gasp stunned shocked shock shocking blown whoa wow omg",
    "surprise": "turns actually surprise surprised surprising surprisingly suddenly unexpected weird strange odd "
    "wait twist realize secret secrets hidden truth real reality expect expected guess nobody myth myths lied",
    # how it is told
    "this": "this these here here's that that's those it it's",
    "why_how": "why how reason reasons because explains explained explain",
    "what_when": "what what's when where which whose",
    "see": "watch see look looks looking video photo photos picture pictures image images seen saw clip film "
    "chart graph map infographic footage",
    "hear": "hear listen heard song sing sings singing music sound sounds rap voice",
    "say": "say says said tell tells told ask asks asked talk talks talking speak speaks speech answer answers "
    "response question questions words word letter quote",
    "think": "think thinks thought know knows knew known understand realize believe idea ideas mind learn learned "
    "guess wonder remember forget imagine",
    "happens": "happens happened happen happening find finds found discover discovered discovers did does done "
    "gets went goes turned became",
    "share": "share click read sign join donate support follow post facebook twitter internet online viral tweet",
    "need_or_command": "need needs should must have gotta want wants got let let's make makes try stop start",
    "contrast": "but however instead although though unless except yet versus vs while rather",
    "negation": "no not don't doesn't didn't isn't aren't wasn't weren't can't couldn't won't wouldn't shouldn't "
    "never nothing without nobody ain't hasn't haven't",
    "extreme": "most ever never every always all only entire completely totally absolutely literally exactly "
    "single first last biggest largest greatest worst best no nothing everything nobody everyone anything",
    "perhaps": "might maybe probably could perhaps possibly almost seems seem may kinda sort bit some few pretty "
    "little kind",
    "intensifiers": "so very really too super seriously actually such even way just",
    # what about
    "time": "minute minutes second seconds hour hours day days week year years moment moments time times today "
    "now then until after before once ago old new",
    "body": "body bodies face eyes hair skin head hand hands naked nude sex sexy sexual breast breasts boobs butt "
    "vagina penis pregnant birth baby babies fat weight thin diet eat eating weightloss beauty makeup",
    "health": "health healthy disease cancer doctor doctors hospital drug drugs medicine medical brain depression "
    "autism mental illness sick disability disabled aids hiv vaccine vaccines obesity",
    "money": "money rich poor poverty pay pays paid wage wages cost costs dollars dollar million millions billion "
    "billions bank banks tax taxes job jobs work workers working business company companies corporate corporations "
    "economy wealth buy buying sell price walmart",
    "politics": "president obama congress senator republican republicans democrat democrats government law laws "
    "vote votes voting election politics politician politicians fox news america american americans country rights "
    "court nra bill mayor governor political campaign",
    "identity": "gay lesbian lgbt transgender trans straight marriage race racism racist black white latino "
    "muslim muslims jewish christian christians god church religion bible feminist feminism feminists gender sexism "
    "sexist immigrant immigrants stereotype stereotypes equality",
    "science": "science scientist scientists physics space nasa earth planet climate change warming global ocean "
    "water energy oil solar universe evolution data study research technology robot",
    "animal": "animal animals dog dogs cat cats bird birds fish elephant bear puppy kitten whale wolf bees cow "
    "cows pig pigs lion",
    "food": "food foods eat eating drink drinks sugar meat chicken milk coffee mcdonald's restaurant cook beer",
    "places": "world place city street home house town country africa india china europe",
    # what sells
    "offer": "free sale save saves saving savings discount discounts deal deals off bonus coupon coupons voucher "
    "vouchers reward rewards gift gifts bargain bargains clearance cheap affordable percent",
    "urgency": "now today tonight hurry last ends ending final finally only limited soon deadline expires expire "
    "left immediately quick fast instantly before miss",
    "exclusive": "exclusive exclusively member members invite invited invitation vip private special insider "
    "insiders select selected limited early access reserved premium",
    "new": "new newest introducing launch launched announcing arrived finally latest fresh update updated upgrade "
    "debut unveiled first",
    "trust": "guarantee guaranteed proven safe secure official certified trust trusted honest expert experts "
    "tested approved recommended authentic quality reliable",
    "ease": "easy easier easily simple simply quick quickly minutes effortless instantly hack hacks tip tips "
    "trick tricks guide checklist step steps",
    # small words
    "articles": "a an the",
    "prepositions": "of in on at by for with from to into about over under through between against during",
    "auxiliaries": "is are was were be been being am has have had do does did will would can could",
}
"""Group → its words; a word may belong to several groups."""

_FLIPS = 3
"""Words that a negation reaches: "not a good idea" is no praise."""

_groups_of: dict[str, list[str]] = {}
for _group, _entries in GROUPS.items():
    for _entry in _entries.split():
        _groups_of.setdefault(_entry, []).append(_group)


@lru_cache(256)
def words(text: str) -> tuple[str, ...]:
    """The words of a text in small letters, in order; an apostrophe inside a word belongs to it."""
    return tuple(_WORD.findall(text.lower().replace("’", "'")))


@lru_cache(20_000)
def counts(text: str) -> Counter[str]:
    """How many words of each group the text has. Remembered: copy it before you change it."""
    return Counter(group for word in words(text) for group in _groups_of.get(word, ()))


def sentiment(text: str) -> float:
    """Words of good feeling less words of bad, per word: in [−1, 1], 0 for a text without either.

    A word up to three after a negation counts the other way round.
    """
    found = words(text)
    total, negated = 0, 0
    for word in found:
        groups = _groups_of.get(word, ())
        tone = ("positive" in groups) - ("negative" in groups or "violence" in groups)
        total += -tone if negated else tone
        negated = _FLIPS if "negation" in groups else max(0, negated - 1)
    return total / len(found) if found else 0.0
