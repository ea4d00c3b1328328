"""Background text: the shipped sample, text files, dictionaries, Hugging Face data sets."""

from collections.abc import Sequence
from glob import glob, has_magic
from importlib import resources
from pathlib import Path

from saerepgeo.data.text.hub_text import HubText
from saerepgeo.data.text.text_files import FileText

__all__ = ["FileText", "HubText", "TextSource", "open_text"]

TextSource = FileText | HubText
"""`documents()` yields strings in a fixed order; `fingerprint` changes when they do; `is_finite`
says whether the end is near enough for going round again and again."""


def open_text(source: str | Path | Sequence[str | Path] = "sample") -> TextSource:
    """Open background text; `source` is one of

    - `"sample"`: the shipped sample, definitions of WordNet 3.0;
    - a path or glob, or a list of them: `.txt` (its paragraphs joined into documents of up to 2,000
      bytes), `.jsonl` (one object a line, its text in `text`), `.dict` (the dictd format, its
      `.index` beside it), each also compressed as `.gz` or `.dz`; matches of a glob are sorted;
    - `"hf:NAME[:CONFIG[:SPLIT]]"`: a Hugging Face data set or a local folder of one, streamed, its
      text in column `text`; the split is `train` unless named (`"hf:NAME::validation"`).

    Raises ValueError on a file that is missing or of another kind, and, while reading, with file
    and place: text that is not UTF-8, a line that is not JSON or has no `text`, no text at all.

    >>> len(next(open_text("sample").documents())) > 0
    True
    """
    if source == "sample":
        sample = resources.files(__name__) / "sample" / "wordnet.jsonl.gz"
        return FileText([Path(str(sample))])
    if isinstance(source, str) and source.startswith("hf:"):
        return HubText(source.removeprefix("hf:"))
    entries = [source] if isinstance(source, str | Path) else list(source)
    if not entries:
        raise ValueError("`source` is an empty list; expected at least one file")
    return FileText([path for entry in entries for path in _matches(str(entry))])


def _matches(entry: str) -> list[Path]:
    path = Path(entry).expanduser()
    if path.is_dir():
        raise ValueError(f"{entry} is a folder; name its files, for example {path / '*.jsonl.gz'}")
    if path.is_file():
        return [path]
    if path.exists():
        raise ValueError(f"{entry} is a pipe or a device; expected a regular file")
    if not has_magic(entry):
        hint = '; `source` is "sample", "hf:NAME" or a file' if not path.suffix else ""
        raise ValueError(f"there is no file {entry}{hint}")
    matches = map(Path, sorted(glob(str(path), recursive=True)))
    files = [match for match in matches if match.is_file()]
    if not files:
        raise ValueError(f"no file matches {entry}")
    return files
