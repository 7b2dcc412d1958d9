"""Public repositories that the trainer's text comes from: their licences, and what is read of a clone.

Running sentences become rows alone and joined to passages; questions stand beside their paragraph, a heading beside what is under
it, a text beside its translation or what is around that, as pairs.
"""

import csv
import html
import itertools
import json
import random
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from moembed.train.data import markdown
from moembed.train.data.manuals import manual
from moembed.train.data.repository import LONG, READ, Asked, Reader, Row, Source, passages

_TELLING = 30  # characters of a sentence that has a translation of its own
_DRAWN = 12  # pairs of a sentence
_BESIDE = 2  # sentences before and after one that tell what it is about
_SAID, _SAID_ELSEWHERE = 40_000, 5_000  # sentences that are drawn of a language that is mostly read, and of another


def _documents(language: str, keys: Iterable[str], sentences: Iterable[str]) -> Iterator[Row]:
    for key, own in itertools.groupby(zip(keys, sentences, strict=False), key=lambda pair: pair[0]):
        yield from passages(language, [sentence for _, sentence in own if sentence], f"{language} {key}")


def _treebank(language: str) -> Reader:
    def read(clone: Path) -> Iterator[Row]:
        for path in sorted(clone.glob("*.conllu")):
            document, found = "", []
            for line in path.read_text("utf-8").splitlines():
                if line.startswith("# newdoc"):
                    document = line
                elif line.startswith("# sent_id = ") and ("pud" in path.name):
                    document = line.split("=")[1].strip()[:6]  # the document's number is in the sentence's
                elif line.startswith("# text = "):
                    found.append((document, line.removeprefix("# text = ").strip()))
            # Sentences of other treebanks stand alone: their order says nothing.
            if any(key for key, _ in found):
                yield from _documents(language, [key for key, _ in found], [text for _, text in found])
            else:
                for _, text in found:
                    yield from passages(language, [text], text)

    return read


def _paragraphs(clone: Path, pattern: str) -> Iterator[tuple[str, list[str]]]:
    for path in sorted(clone.glob(pattern)):
        for article in json.loads(path.read_text("utf-8"))["data"]:
            for paragraph in article["paragraphs"]:
                yield paragraph["context"].strip(), [asked["question"].strip() for asked in paragraph["qas"]]


def _questions(repository: str, licence: str, language: str, pattern: str) -> Source:
    def read(clone: Path) -> Iterator[Row]:
        for context, questions in _paragraphs(clone, pattern):
            yield Row(language, context, "d")
            for question in questions:
                yield Row(language, question, "q")

    def pairs(clone: Path) -> Iterator[Asked]:
        for context, questions in _paragraphs(clone, pattern):
            for question in questions:
                yield Asked(question, context, "question")

    return Source(repository, licence, read, pairs)


# Codes of three letters that our languages have, to those of two; others are left out: the teacher hardly knows them.
_CODES = {
    code: two
    for two, codes in {
        "af": "afr", "am": "amh", "ar": "arb", "az": "aze-Latn", "be": "bel", "bg": "bul", "bn": "ben", "bs": "bos",
        "ca": "cat", "cs": "ces", "cy": "cym", "da": "dan", "de": "deu", "el": "ell", "en": "eng-GB newstest2019-src.eng",
        "es": "spa spa-MX", "et": "est", "eu": "eus", "fa": "fas", "fi": "fin", "fr": "fra fra-CA", "ga": "gle", "gl": "glg",
        "gu": "guj", "he": "heb", "hi": "hin", "hr": "hrv", "hu": "hun", "hy": "hye", "id": "ind", "is": "isl", "it": "ita",
        "ja": "jpn", "ka": "kat", "kk": "kaz", "km": "khm", "kn": "kan", "ko": "kor", "ku": "kmr", "lo": "lao", "lt": "lit",
        "lv": "lav", "mk": "mkd", "ml": "mal", "mn": "mon", "mr": "mar", "ms": "msa", "my": "mya", "ne": "nep", "nl": "nld",
        "nb": "nob", "pa": "pan", "pl": "pol", "ps": "pus", "pt": "por por-BR", "ro": "ron", "ru": "rus", "sk": "slk",
        "sl": "slv", "sq": "sqi", "sr": "srp-Cyrl srp-Latn", "sv": "swe", "sw": "swa", "ta": "tam", "te": "tel", "th": "tha",
        "tl": "fil", "tr": "tur", "uk": "ukr", "ur": "urd", "uz": "uzb", "vi": "vie", "zh": "zho-CN zho-TW",
    }.items()
    for code in codes.split()
}  # fmt: skip


_SPOKEN = "eng-GB deu spa rus zho-CN arb fra ita por pol nld jpn".split()


def _news(clone: Path) -> Iterator[Row]:
    keys = (clone / "DOCUMENT_IDS.tsv").read_text("utf-8").splitlines()
    for path in sorted((clone / "NTREX-128").glob("*.txt")):
        code = path.name.removeprefix("newstest2019-ref.").removesuffix(".txt")
        if code in _CODES:
            yield from _documents(_CODES[code], keys, path.read_text("utf-8").splitlines())


def _translated_news(clone: Path) -> Iterator[Asked]:
    """A sentence and its translation, alone or among those around it, or what is around it without it, in languages drawn."""
    documents = (clone / "DOCUMENT_IDS.tsv").read_text("utf-8").splitlines()
    texts = {
        code: (clone / "NTREX-128" / f"newstest2019-ref.{code}.txt").read_text("utf-8").splitlines()
        for code in _CODES
        if (clone / "NTREX-128" / f"newstest2019-ref.{code}.txt").is_file()
    }
    generator = random.Random("news")  # noqa: S311
    for index, document in enumerate(documents):
        for _ in range(_DRAWN):
            one, other = (
                generator.sample(_SPOKEN, 2) if generator.random() < 0.5 else generator.sample(sorted(texts), 2)
            )
            first, last = index, index + 1
            for _ in range(generator.randrange(4)):
                first -= first > 0 and documents[first - 1] == document and generator.random() < 0.5
                last += last < len(documents) and documents[last] == document and generator.random() < 0.5
            query, around = texts[one][index], texts[other][first:last]
            if _CODES[one] != _CODES[other] and len(query) >= _TELLING:
                yield Asked(query, " ".join(around)[:LONG], "translation")
        near = range(max(index - _BESIDE, 0), min(index + _BESIDE + 1, len(documents)))
        beside = [other for other in near if other != index and documents[other] == document]
        for one in _SPOKEN:
            for other in dict.fromkeys((one, generator.choice(_SPOKEN))):
                if beside and len(texts[one][index]) >= _TELLING:
                    document = " ".join(texts[other][i] for i in beside)[:LONG]
                    yield Asked(texts[one][index], document, "context")


def _articles(clone: Path) -> Iterator[list[str]]:
    for path in sorted(clone.glob("NEREL-v1.0/*/*.txt")):
        yield [paragraph.strip()[:LONG] for paragraph in path.read_text("utf-8").split("\n")]


def _tagged(clone: Path) -> Iterator[Row]:
    for article in _articles(clone):
        yield from (Row("ru", paragraph, "d") for paragraph in article)


def _titled(clone: Path) -> Iterator[Asked]:
    for title, *paragraphs in _articles(clone):
        for paragraph in paragraphs:
            if title and len(paragraph) >= _TELLING:
                yield Asked(title, paragraph, "heading")


_COLUMNS = ("original", "translation")


def _estimates(clone: Path) -> Iterator[tuple[Row, Row]]:
    for path in sorted(clone.glob("data/direct-assessments/*/*.tar.gz")):
        pair = path.name.split("-")[:2]
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.endswith(".tsv") and (file := archive.extractfile(member)):
                    lines = (line.decode("utf-8") for line in file)
                    for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
                        sides = (
                            (language, str(row.get(column) or ""))
                            for language, column in zip(pair, _COLUMNS, strict=True)
                        )
                        one, other = (next(passages(language, [text], str(row))) for language, text in sides)
                        yield one, other


def _estimated(clone: Path) -> Iterator[Row]:
    return itertools.chain.from_iterable(_estimates(clone))


def _by_turns(translations: Iterable[tuple[str, str]], least: int) -> Iterator[Asked]:
    """A text and its translation, either as the query by turns, where the text has `least` characters."""
    for number, (one, other) in enumerate(translations):
        if len(one) >= least and other:
            query, document = (other, one) if number % 2 else (one, other)
            yield Asked(query, document, "translation")


def _translated(clone: Path) -> Iterator[Asked]:
    return _by_turns(((one.text, other.text) for one, other in _estimates(clone)), _TELLING)


_LANGUAGES = frozenset(_CODES.values())


_VOWELS, _POINTED = re.compile("[\u064b-\u0652]"), 4  # Arabic with its vowels written is scripture or verse


def _said(clone: Path) -> Iterator[Row]:
    """Sentences to read aloud, by language."""
    for folder in sorted(clone.glob("server/data/*")):
        language = folder.name.split("-")[0]
        if language not in _LANGUAGES or folder.name == "zh-HK":  # Cantonese
            continue
        found = dict[str, None]()
        for path in sorted(folder.glob("*.txt")):
            if re.search("singleword|address|cities|places|phrases", path.name, re.IGNORECASE):
                continue
            for line in path.read_text("utf-8").splitlines():
                sentence = line.strip().lstrip("!?.,:;؟،؛*-–— ")
                if (
                    len(sentence) >= (5 if language in ("zh", "ja") else 12)
                    and any(map(str.isalpha, sentence))
                    and markdown.written(language, sentence)
                    and len(_VOWELS.findall(sentence)) < _POINTED
                ):
                    found[sentence] = None
        most = _SAID if language in READ else _SAID_ELSEWHERE
        drawn = random.Random(language).sample(sorted(found), min(most, len(found)))  # noqa: S311
        for sentence in drawn:
            yield from passages(language, [sentence], sentence)


_UNIT = re.compile(
    r'<tu tuid="([^":]*)[^"]*">.*?xml:lang="en[^"]*">\s*<seg>(.*?)</seg>.*?xml:lang="[^"]*">\s*<seg>(.*?)</seg>',
    re.DOTALL,
)


def _memory(clone: Path) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Translation memories from English: the other language, and the document, text and translation of each unit."""
    for path in sorted(clone.glob("data/TM/all.en-*.tmx.zip")):
        language = path.name.removeprefix("all.en-").split(".")[0].split("-")[0]
        if language in _LANGUAGES and path.name.count(".") == 3:
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.endswith(".tmx") and "__MACOSX" not in name)
                units = _UNIT.findall(archive.read(name).decode("utf-8"))
            yield (
                language,
                [(key, html.unescape(one).strip(), html.unescape(other).strip()) for key, one, other in units],
            )


def _remembered(clone: Path) -> Iterator[Row]:
    for language, units in _memory(clone):
        if units:
            keys, texts, translations = zip(*units, strict=True)
            yield from _documents("en", keys, texts)
            yield from _documents(language, keys, translations)


def _translated_memory(clone: Path) -> Iterator[Asked]:
    for _, units in _memory(clone):
        yield from _by_turns(((one, other) for _, one, other in units), _TELLING)


def _gendered(clone: Path) -> Iterator[tuple[str, str, str]]:
    """A language, an English text of one to three sentences, and its translation."""
    for path in sorted(clone.glob("data/sentences/*/geneval-*")):
        language = path.name.rpartition(".")[2]
        original = path.with_name(path.name.removesuffix(language) + "en")
        if language != "en" and original.is_file():
            sides = (side.read_text("utf-8").splitlines() for side in (original, path))
            yield from ((language, one.strip(), other.strip()) for one, other in zip(*sides, strict=True))


def _gendered_rows(clone: Path) -> Iterator[Row]:
    for language, one, other in _gendered(clone):
        yield from passages("en", [one], one)
        yield from passages(language, [other], other)


def _gendered_pairs(clone: Path) -> Iterator[Asked]:
    return _by_turns(((one, other) for _, one, other in _gendered(clone)), 1)


_SHARE_ALIKE = "CC BY-SA 4.0"
SOURCES = (
    Source("MicrosoftTranslator/NTREX", _SHARE_ALIKE, _news, _translated_news),
    Source("sheffieldnlp/mlqe-pe", "CC0", _estimated, _translated),
    Source("nerel-ds/NEREL", "CC BY 2.5", _tagged, _titled),
    _questions("SkelterLabsInc/JaQuAD", "CC BY-SA 3.0", "ja", "data/*/*.json"),
    _questions("DRCKnowledgeTeam/DRCD", "CC BY-SA 3.0", "zh", "*.json"),
    _questions("ymcui/cmrc2018", _SHARE_ALIKE, "zh", "squad-style-data/*.json"),
    _questions("husseinmozannar/SOQAL", "MIT", "ar", "data/arcd.json"),
    _questions("sajjjadayobi/PersianQA", _SHARE_ALIKE, "fa", "dataset/*.json"),
    _questions("TQuad/turkish-nlp-qa-dataset", "MIT", "tr", "*.json"),
    *(
        Source(f"UniversalDependencies/UD_{name}", "CC BY-SA", _treebank(language))
        for language, name in (
            ("ar", "Arabic-PUD"), ("de", "German-PUD"), ("de", "German-GSD"), ("en", "English-PUD"), ("en", "English-EWT"),
            ("es", "Spanish-PUD"), ("es", "Spanish-GSD"), ("fa", "Persian-PerDT"), ("fr", "French-PUD"), ("fr", "French-GSD"),
            ("id", "Indonesian-GSD"), ("it", "Italian-PUD"), ("ja", "Japanese-GSD"), ("ko", "Korean-GSD"), ("nl", "Dutch-Alpino"),
            ("pl", "Polish-PUD"), ("pt", "Portuguese-GSD"), ("ru", "Russian-PUD"), ("ru", "Russian-GSD"), ("ru", "Russian-Taiga"),
            ("zh", "Chinese-PUD"), ("zh", "Chinese-GSD"),
        )
    ),
    Source("mozilla/common-voice", "CC0", _said),
    Source("tico-19/tico-19.github.io", "CC0", _remembered, _translated_memory),
    Source("amazon-science/machine-translation-gender-eval", "CC BY-SA 3.0", _gendered_rows, _gendered_pairs),
    manual("OWASP/Top10", _SHARE_ALIKE, r"20\d\d/docs/(?P<code>[\w-]+)/(?P<page>[^/.]+)(?:\.[\w-]+)?\.md"),
    manual("cncf/glossary", "CC BY 4.0", r"content/(?P<code>[\w-]+)/(?P<page>.+)\.md"),
    manual("github/opensource.guide", "CC BY 4.0", r"_articles/(?:(?P<code>[\w-]+)/)?(?P<page>[^/]+)\.md"),
    manual("reactjs/ar.react.dev", "CC BY 4.0", r"src/content/(?P<page>.+)\.md", "ar"),
    *(
        manual(f"microsoft/{name}", "MIT", r"(?:translations/(?P<code>[\w-]+)/)?(?P<page>.+)\.md")
        for name in ("AZD-for-beginners", "IoT-For-Beginners", "edgeai-for-beginners")
    ),
)  # fmt: skip
