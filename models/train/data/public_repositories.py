"""Public repositories of training texts: their licenses, and the readers of their clones.

Consecutive sentences become rows, alone and joined to passages. Pairs are a question and its paragraph, a heading and the text
below it, or a text and its translation or the context of its translation.
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
from moembed.train.data.documentation import documentation
from moembed.train.data.repository import MAIN_LANGUAGES, MAX_PASSAGE, RawPair, Repository, Row, RowReader, passages

_MIN_QUERY = 30  # characters of a sentence that identify its translation
_PAIRS_PER_SENTENCE = 12
_CONTEXT = 2  # sentences before and after a query
_SENTENCES_MAIN, _SENTENCES_OTHER = 40_000, 5_000  # sampled sentences of a main language, and of another


def _document_passages(language: str, keys: Iterable[str], sentences: Iterable[str]) -> Iterator[Row]:
    for key, items in itertools.groupby(zip(keys, sentences, strict=False), key=lambda pair: pair[0]):
        yield from passages(language, [sentence for _, sentence in items if sentence], f"{language} {key}")


def _read_treebank(language: str) -> RowReader:
    def read(clone: Path) -> Iterator[Row]:
        for path in sorted(clone.glob("*.conllu")):
            document, found = "", []
            for line in path.read_text("utf-8").splitlines():
                if line.startswith("# newdoc"):
                    document = line
                elif line.startswith("# sent_id = ") and "pud" in path.name:
                    document = line.split("=")[1].strip()[:6]  # the sentence id starts with the number of its document
                elif line.startswith("# text = "):
                    found.append((document, line.removeprefix("# text = ").strip()))
            # In other treebanks, neighbouring sentences are unrelated.
            if any(key for key, _ in found):
                yield from _document_passages(language, [key for key, _ in found], [text for _, text in found])
            else:
                for _, text in found:
                    yield from passages(language, [text], text)

    return read


def _squad_paragraphs(clone: Path, pattern: str) -> Iterator[tuple[str, list[str]]]:
    for path in sorted(clone.glob(pattern)):
        for article in json.loads(path.read_text("utf-8"))["data"]:
            for paragraph in article["paragraphs"]:
                yield paragraph["context"].strip(), [item["question"].strip() for item in paragraph["qas"]]


def _squad(name: str, license_name: str, language: str, pattern: str) -> Repository:
    def read_rows(clone: Path) -> Iterator[Row]:
        for context, questions in _squad_paragraphs(clone, pattern):
            yield Row(language, context, "d")
            for question in questions:
                yield Row(language, question, "q")

    def read_pairs(clone: Path) -> Iterator[RawPair]:
        for context, questions in _squad_paragraphs(clone, pattern):
            for question in questions:
                yield RawPair(question, context, "question")

    return Repository(name, license_name, read_rows, read_pairs)


# ISO 639-3 codes (as NTREX spells them) to ISO 639-1; other languages are left out: the teacher hardly knows them.
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


_WIDELY_SPOKEN = "eng-GB deu spa rus zho-CN arb fra ita por pol nld jpn".split()


def _read_ntrex(clone: Path) -> Iterator[Row]:
    keys = (clone / "DOCUMENT_IDS.tsv").read_text("utf-8").splitlines()
    for path in sorted((clone / "NTREX-128").glob("*.txt")):
        code = path.name.removeprefix("newstest2019-ref.").removesuffix(".txt")
        if code in _CODES:
            yield from _document_passages(_CODES[code], keys, path.read_text("utf-8").splitlines())


def _read_ntrex_pairs(clone: Path) -> Iterator[RawPair]:
    """Yield pairs in sampled languages: a sentence and its translation, alone or with context, or the context alone."""
    documents = (clone / "DOCUMENT_IDS.tsv").read_text("utf-8").splitlines()
    texts = {
        code: (clone / "NTREX-128" / f"newstest2019-ref.{code}.txt").read_text("utf-8").splitlines()
        for code in _CODES
        if (clone / "NTREX-128" / f"newstest2019-ref.{code}.txt").is_file()
    }
    generator = random.Random("news")  # noqa: S311
    for index, document in enumerate(documents):
        for _ in range(_PAIRS_PER_SENTENCE):
            one, other = (
                generator.sample(_WIDELY_SPOKEN, 2) if generator.random() < 0.5 else generator.sample(sorted(texts), 2)
            )
            first, last = index, index + 1
            for _ in range(generator.randrange(4)):
                if first > 0 and documents[first - 1] == document and generator.random() < 0.5:
                    first -= 1
                if last < len(documents) and documents[last] == document and generator.random() < 0.5:
                    last += 1
            query, around = texts[one][index], texts[other][first:last]
            if _CODES[one] != _CODES[other] and len(query) >= _MIN_QUERY:
                yield RawPair(query, " ".join(around)[:MAX_PASSAGE], "translation")
        near = range(max(index - _CONTEXT, 0), min(index + _CONTEXT + 1, len(documents)))
        context = [other for other in near if other != index and documents[other] == document]
        for one in _WIDELY_SPOKEN:
            for other in dict.fromkeys((one, generator.choice(_WIDELY_SPOKEN))):
                if context and len(texts[one][index]) >= _MIN_QUERY:
                    passage = " ".join(texts[other][i] for i in context)[:MAX_PASSAGE]
                    yield RawPair(texts[one][index], passage, "context")


def _nerel_articles(clone: Path) -> Iterator[list[str]]:
    for path in sorted(clone.glob("NEREL-v1.0/*/*.txt")):
        yield [paragraph.strip()[:MAX_PASSAGE] for paragraph in path.read_text("utf-8").split("\n")]


def _read_nerel(clone: Path) -> Iterator[Row]:
    for article in _nerel_articles(clone):
        yield from (Row("ru", paragraph, "d") for paragraph in article)


def _read_nerel_pairs(clone: Path) -> Iterator[RawPair]:
    for title, *paragraphs in _nerel_articles(clone):
        for paragraph in paragraphs:
            if title and len(paragraph) >= _MIN_QUERY:
                yield RawPair(title, paragraph, "heading")


_COLUMNS = ("original", "translation")


def _mlqe_translations(clone: Path) -> Iterator[tuple[Row, Row]]:
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


def _read_mlqe(clone: Path) -> Iterator[Row]:
    return itertools.chain.from_iterable(_mlqe_translations(clone))


def _translation_pairs(translations: Iterable[tuple[str, str]], min_characters: int) -> Iterator[RawPair]:
    """Yield pairs whose query is the text and the translation in turn, if the text has `min_characters`."""
    for number, (one, other) in enumerate(translations):
        if len(one) >= min_characters and other:
            query, document = (other, one) if number % 2 else (one, other)
            yield RawPair(query, document, "translation")


def _read_mlqe_pairs(clone: Path) -> Iterator[RawPair]:
    return _translation_pairs(((one.text, other.text) for one, other in _mlqe_translations(clone)), _MIN_QUERY)


_LANGUAGES = frozenset(_CODES.values())


_VOWEL_MARKS, _MIN_VOWEL_MARKS = re.compile("[\u064b-\u0652]"), 4  # vocalized Arabic is scripture or verse


def _read_common_voice(clone: Path) -> Iterator[Row]:
    """Yield the sentences that speakers read aloud, by language."""
    for folder in sorted(clone.glob("server/data/*")):
        language = folder.name.split("-")[0]
        if language not in _LANGUAGES or folder.name == "zh-HK":  # Cantonese
            continue
        sentences = dict[str, None]()
        for path in sorted(folder.glob("*.txt")):
            if re.search("singleword|address|cities|places|phrases", path.name, re.IGNORECASE):
                continue
            for line in path.read_text("utf-8").splitlines():
                sentence = line.strip().lstrip("!?.,:;؟،؛*-–— ")
                if (
                    len(sentence) >= (5 if language in ("zh", "ja") else 12)
                    and any(map(str.isalpha, sentence))
                    and markdown.matches_script(language, sentence)
                    and len(_VOWEL_MARKS.findall(sentence)) < _MIN_VOWEL_MARKS
                ):
                    sentences[sentence] = None
        limit = _SENTENCES_MAIN if language in MAIN_LANGUAGES else _SENTENCES_OTHER
        sampled = random.Random(language).sample(sorted(sentences), min(limit, len(sentences)))  # noqa: S311
        for sentence in sampled:
            yield from passages(language, [sentence], sentence)


_TRANSLATION_UNIT = re.compile(
    r'<tu tuid="([^":]*)[^"]*">.*?xml:lang="en[^"]*">\s*<seg>(.*?)</seg>.*?xml:lang="[^"]*">\s*<seg>(.*?)</seg>',
    re.DOTALL,
)


def _translation_memories(clone: Path) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Yield translation memories from English: target language, and the document, text and translation of each unit."""
    for path in sorted(clone.glob("data/TM/all.en-*.tmx.zip")):
        language = path.name.removeprefix("all.en-").split(".")[0].split("-")[0]
        if language in _LANGUAGES and path.name.count(".") == 3:
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.endswith(".tmx") and "__MACOSX" not in name)
                units = _TRANSLATION_UNIT.findall(archive.read(name).decode("utf-8"))
            yield (
                language,
                [(key, html.unescape(one).strip(), html.unescape(other).strip()) for key, one, other in units],
            )


def _read_tico19(clone: Path) -> Iterator[Row]:
    for language, units in _translation_memories(clone):
        if units:
            keys, texts, translations = zip(*units, strict=True)
            yield from _document_passages("en", keys, texts)
            yield from _document_passages(language, keys, translations)


def _read_tico19_pairs(clone: Path) -> Iterator[RawPair]:
    for _, units in _translation_memories(clone):
        yield from _translation_pairs(((one, other) for _, one, other in units), _MIN_QUERY)


def _geneval_translations(clone: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the target language, an English text of one to three sentences, and its translation."""
    for path in sorted(clone.glob("data/sentences/*/geneval-*")):
        language = path.name.rpartition(".")[2]
        original = path.with_name(path.name.removesuffix(language) + "en")
        if language != "en" and original.is_file():
            sides = (side.read_text("utf-8").splitlines() for side in (original, path))
            yield from ((language, one.strip(), other.strip()) for one, other in zip(*sides, strict=True))


def _read_geneval(clone: Path) -> Iterator[Row]:
    for language, one, other in _geneval_translations(clone):
        yield from passages("en", [one], one)
        yield from passages(language, [other], other)


def _read_geneval_pairs(clone: Path) -> Iterator[RawPair]:
    return _translation_pairs(((one, other) for _, one, other in _geneval_translations(clone)), 1)


_SHARE_ALIKE = "CC BY-SA 4.0"
REPOSITORIES = (
    Repository("MicrosoftTranslator/NTREX", _SHARE_ALIKE, _read_ntrex, _read_ntrex_pairs),
    Repository("sheffieldnlp/mlqe-pe", "CC0", _read_mlqe, _read_mlqe_pairs),
    Repository("nerel-ds/NEREL", "CC BY 2.5", _read_nerel, _read_nerel_pairs),
    _squad("SkelterLabsInc/JaQuAD", "CC BY-SA 3.0", "ja", "data/*/*.json"),
    _squad("DRCKnowledgeTeam/DRCD", "CC BY-SA 3.0", "zh", "*.json"),
    _squad("ymcui/cmrc2018", _SHARE_ALIKE, "zh", "squad-style-data/*.json"),
    _squad("husseinmozannar/SOQAL", "MIT", "ar", "data/arcd.json"),
    _squad("sajjjadayobi/PersianQA", _SHARE_ALIKE, "fa", "dataset/*.json"),
    _squad("TQuad/turkish-nlp-qa-dataset", "MIT", "tr", "*.json"),
    *(
        Repository(f"UniversalDependencies/UD_{name}", "CC BY-SA", _read_treebank(language))
        for language, name in (
            ("ar", "Arabic-PUD"), ("de", "German-PUD"), ("de", "German-GSD"), ("en", "English-PUD"), ("en", "English-EWT"),
            ("es", "Spanish-PUD"), ("es", "Spanish-GSD"), ("fa", "Persian-PerDT"), ("fr", "French-PUD"), ("fr", "French-GSD"),
            ("id", "Indonesian-GSD"), ("it", "Italian-PUD"), ("ja", "Japanese-GSD"), ("ko", "Korean-GSD"), ("nl", "Dutch-Alpino"),
            ("pl", "Polish-PUD"), ("pt", "Portuguese-GSD"), ("ru", "Russian-PUD"), ("ru", "Russian-GSD"), ("ru", "Russian-Taiga"),
            ("zh", "Chinese-PUD"), ("zh", "Chinese-GSD"),
        )
    ),
    Repository("mozilla/common-voice", "CC0", _read_common_voice),
    Repository("tico-19/tico-19.github.io", "CC0", _read_tico19, _read_tico19_pairs),
    Repository("amazon-science/machine-translation-gender-eval", "CC BY-SA 3.0", _read_geneval, _read_geneval_pairs),
    documentation("OWASP/Top10", _SHARE_ALIKE, r"20\d\d/docs/(?P<code>[\w-]+)/(?P<page>[^/.]+)(?:\.[\w-]+)?\.md"),
    documentation("cncf/glossary", "CC BY 4.0", r"content/(?P<code>[\w-]+)/(?P<page>.+)\.md"),
    documentation("github/opensource.guide", "CC BY 4.0", r"_articles/(?:(?P<code>[\w-]+)/)?(?P<page>[^/]+)\.md"),
    documentation("reactjs/ar.react.dev", "CC BY 4.0", r"src/content/(?P<page>.+)\.md", "ar"),
    *(
        documentation(f"microsoft/{name}", "MIT", r"(?:translations/(?P<code>[\w-]+)/)?(?P<page>.+)\.md")
        for name in ("AZD-for-beginners", "IoT-For-Beginners", "edgeai-for-beginners")
    ),
)  # fmt: skip
