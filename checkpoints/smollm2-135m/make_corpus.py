"""Make the corpus that the shipped SAE was trained on, and the sample that the package ships.

    apt-get download dict-wn dict-gcide dict-foldoc debian-handbook
    for package in *.deb; do dpkg -x "$package" unpacked; done
    python checkpoints/smollm2-135m/make_corpus.py unpacked corpus saerepgeo/data/text/sample

Writes `train.jsonl.gz` and `heldout.jsonl.gz` into the second folder and `wordnet.jsonl.gz` into
the third, and prints what is in them. A document is a page: neighboring entries of one
dictionary, or neighboring paragraphs of the handbook, about 1,500 characters together. Which page
goes where depends on its digest alone, so that the same packages always give the same files.

- WordNet repeats a definition in the entry of every synonym; here it stands once, in the first.
- A third of WordNet's pages is the shipped sample, 2 % of all other pages are held out.
- An entry that shares ten words in a row with either never gets into the training text.
"""

import argparse
import gzip
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path

from saerepgeo.data.text.dictd import raw_entries, unwrap_entry

PAGE_CHARS = 1500
SAMPLE_CHARS = 4_500_000
HELDOUT_SHARE = 0.02
SHARED_WORDS = 10

Page = tuple[str, ...]
"""Entries or paragraphs."""


def read_dictionary(path: Path) -> Iterator[str]:
    """Yield the entries as they stand; three bytes of GCIDE are not UTF-8."""
    for _, content in raw_entries(path):
        yield content.decode("utf-8", "replace")


def wordnet(path: Path) -> Iterator[str]:
    """Yield WordNet's entries, one line a sense, each definition once."""
    names = {"n": "noun", "v": "verb", "adj": "adjective", "adv": "adverb"}
    seen = set()
    for entry in read_dictionary(path):
        headword, _, body = entry.partition("\n")
        senses, part = [], ""
        for sense in re.split(r"^ {4}(?=(?:[a-z]+ )?\d+: )", body, flags=re.MULTILINE)[1:]:
            match = re.match(r"(?:([a-z]+) )?\d+: ", sense)
            assert match is not None
            part = match.group(1) or part
            text = _with_synonyms(unwrap_entry(sense[match.end() :]), headword)
            key = (part, text.partition(" Synonyms: ")[0])
            if key not in seen:
                seen.add(key)
                senses.append(f"{headword} ({names.get(part, part)}): {text}")
        if senses:
            yield "\n".join(senses)


def _with_synonyms(sense: str, headword: str) -> str:
    text, _, rest = sense.replace("\n", " ").partition(" [")
    text = text.rstrip(" ;.") + "."
    for label, kind in (("Synonyms", "syn"), ("Antonym", "ant")):
        listed = re.search(rf"{kind}: ([^\]]*)\]", rest)
        others = (
            [word for word in listed.group(1).split(", ") if word != headword] if listed else []
        )
        if others:
            text += f" {label}: {', '.join(others)}."
    return text


ACCENTS = {"'": "\u0301", "`": "\u0300", '"': "\u0308", "^": "\u0302", "~": "\u0303"}
ACCENTS |= {"=": "\u0304", "-": "\u0304", ".": "\u0307", ",": "\u0327"}
LETTERS = {"ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "eth": "ð", "thorn": "þ", "deg": "°"}
LETTERS |= {"imac": "ī", "aum": "ä", "oum": "ö", "uum": "ü", "root": "√", "pounds": "£"}
GCIDE_SOURCE = r"\[(?:1913 Webster|Webster 1913|WordNet|PJC|AS\b|RDH|RHUD|MW10)[^\]]*\]"


def gcide(path: Path) -> Iterator[str]:
    """Yield the entries of GCIDE without pronunciations, marks of origin, and what is WordNet's."""
    for entry in read_dictionary(path):
        paragraphs = re.split(r"\n\s*\n", re.sub(rf"({GCIDE_SOURCE}).*", r"\1", entry))
        own = [text for text in paragraphs if "[WordNet" not in text]
        text = "\n\n".join(own)
        text = re.sub(GCIDE_SOURCE, "", text)
        text = re.sub(r"\s?\\[^\\]*\\", "", text)
        text = re.sub(r"\s?\((?=[^()]*(?:\[[^\]]{1,5}\]|\?))[^()]*\)(?=, [a-z])", "", text)
        text = re.sub(r"\[([^\]\s]{2,6})\]", _accented, text)
        # Syllables and stress of a derived word: o"ver*anx"ious*ly.
        text = re.sub(r"(?<=\w)[*\"`](?=\w)", "", text)
        text = re.sub(r"\s+\]", "]", re.sub(r"\s?\[\W*\]", "", text))
        if len(text.split()) > 4 and own and own[0] == paragraphs[0]:
            yield unwrap_entry(_with_whole_head(text))


def _with_whole_head(entry: str) -> str:
    """Bring the etymology, which stands in brackets, into the entry's first line."""
    head, *lines = entry.strip().splitlines()
    while lines and head.count("[") > head.count("]"):
        head += f" {lines.pop(0).strip()}"
    return "\n".join([head, *lines])


def _accented(match: re.Match[str]) -> str:
    code = match.group(1)
    if code in LETTERS:
        return LETTERS[code]
    if len(code) == 2 and code[0] in ACCENTS and code[1].isalpha():
        return unicodedata.normalize("NFC", code[1] + ACCENTS[code[0]])
    if len(code) == 2 and code[1] == "^" and code[0].isalpha():
        return unicodedata.normalize("NFC", code[0] + "\u0306")
    return match.group()


def foldoc(path: Path) -> Iterator[str]:
    """Yield the entries of FOLDOC without the dates of their last change."""
    for entry in read_dictionary(path):
        text = unwrap_entry(re.sub(r"^\s*\(\d{4}-\d\d-\d\d\)\s*$", "", entry, flags=re.MULTILINE))
        if len(text.split()) > 4:
            yield text


class _Paragraphs(HTMLParser):
    """Collects the text of paragraphs and list items outside of the navigation."""

    def __init__(self) -> None:
        super().__init__()
        self.paragraphs: list[str] = []
        self.depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "p" and "nav" not in (dict(attrs).get("class") or ""):
            self.depth = 1
            self.paragraphs.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "p":
            self.depth = 0

    def handle_data(self, data: str) -> None:
        if self.depth:
            self.paragraphs[-1] += data


def handbook(folder: Path) -> Iterator[str]:
    """Yield the paragraphs of the English Debian handbook."""
    for path in sorted(folder.glob("*.html")):
        parser = _Paragraphs()
        parser.feed(path.read_text(encoding="utf-8"))
        for paragraph in parser.paragraphs:
            if len(paragraph.split()) > 8:
                yield " ".join(paragraph.split())


def pages(entries: Iterator[str]) -> Iterator[Page]:
    """Join neighbors into pages of at most `PAGE_CHARS`, or of one longer entry."""
    page: list[str] = []
    for entry in entries:
        if page and sum(map(len, page)) + len(entry) > PAGE_CHARS:
            yield tuple(page)
            page = []
        page.append(entry)
    if page:
        yield tuple(page)


def digest(page: Page) -> bytes:
    return hashlib.sha256("\n".join(page).encode()).digest()


def runs_of_words(text: str) -> set[int]:
    words = re.findall(r"\w+", text.casefold())
    return {
        hash(tuple(words[start : start + SHARED_WORDS]))
        for start in range(len(words) - SHARED_WORDS + 1)
    }


def write(path: Path, documents: Sequence[Page]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:
        for page in documents:
            out.write(json.dumps({"text": "\n".join(page)}, ensure_ascii=False).encode() + b"\n")
    partial.replace(path)
    n_chars = sum(len("\n".join(page)) for page in documents)
    print(f"{path}: {len(documents)} documents, {n_chars} characters")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("unpacked", "corpus", "sample"):
        parser.add_argument(name, type=Path)
    folders = parser.parse_args()
    dictd = folders.unpacked / "usr/share/dictd"
    by_digest = sorted(pages(wordnet(dictd / "wn.dict.dz")), key=digest)
    n_sample = total = 0
    while total < SAMPLE_CHARS:
        total += len("\n".join(by_digest[n_sample]))
        n_sample += 1
    sample, rest = by_digest[:n_sample], by_digest[n_sample:]
    rest += pages(gcide(dictd / "gcide.dict.dz"))
    rest += pages(foldoc(dictd / "foldoc.dict.dz"))
    rest += pages(handbook(folders.unpacked / "usr/share/doc/debian-handbook/html/en-US"))
    # A second digest: the first one has already decided on the sample.
    rest.sort(key=lambda page: hashlib.sha256(digest(page)).digest())
    n_heldout = round(HELDOUT_SHARE * len(rest))
    heldout, train = rest[:n_heldout], rest[n_heldout:]
    known = set().union(*(runs_of_words("\n".join(page)) for page in sample + heldout))
    kept = [
        tuple(entry for entry in page if known.isdisjoint(runs_of_words(entry))) for page in train
    ]
    n_dropped = sum(map(len, train)) - sum(map(len, kept))
    print(f"{n_dropped} entries share {SHARED_WORDS} words in a row with held-out text: left out")
    write(folders.sample / "wordnet.jsonl.gz", sample)
    write(folders.corpus / "heldout.jsonl.gz", heldout)
    write(folders.corpus / "train.jsonl.gz", [page for page in kept if page])


if __name__ == "__main__":
    main()
