"""Probe texts for checks on a user's machine: many scripts and lengths, free of licences."""

from moembed.tokenizer.tokenizer import Tokenizer

_SENTENCES = (
    "Hello!",
    "¡Hola!",
    "What food did they eat at the harbour on the first evening?",
    "Die Brücke wurde 1902 aus Sandstein gebaut und steht heute unter Denkmalschutz.",
    "Le chat dort sur le vieux canapé, près de la fenêtre ouverte.",
    "Сколько стоит билет на ночной поезд до Новосибирска?",
    "骆驼很酷，嵌入也很酷。",
    "この橋は石で造られ、百年以上前から川を渡る人々を支えてきました。",
    "한국어 문장은 조사와 어미로 뜻을 나타냅니다.",
    "كم عدد اللغات التي يتحدث بها سكان المدينة القديمة؟",
    "हिन्दी में लिखा गया एक छोटा वाक्य।",
    "ภาษาไทยเขียนติดกันโดยไม่มีช่องว่างระหว่างคำ",
    "Η θάλασσα ήταν ήρεμη και ο ουρανός καθαρός.",
    "naïve café — ﬁne ① Ⅷ ｆｕｌｌｗｉｄｔｈ 👍🏽",
    "def route(x): return softmax(x @ w).topk(2)",
    "a",
)


def probe_texts(longest: int = 8) -> list[str]:
    """Return forty fixed texts: each sentence alone, then sequences of up to `longest` sentences of mixed scripts."""
    count = len(_SENTENCES)
    texts = list(_SENTENCES)
    for i in range(24):
        run = 2 + i % (longest - 1)
        texts.append(" ".join(_SENTENCES[(5 * i + 3 * j) % count] for j in range(run)))
    return texts


def probe_ids(tokenizer: Tokenizer, limit: int) -> list[list[int]]:
    """Return the token ids of the forty probe texts, special tokens included, without a prompt, each cut to `limit` tokens."""
    return [ids[:limit].tolist() for ids in tokenizer.encode(probe_texts())]
