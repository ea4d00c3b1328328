"""Configuration files that are none, or say a setting twice, or grow beyond measure."""

import os
from collections.abc import Callable

import yaml
from faults.faults import Fault, Place


def config(name: str, says: str, content: str | bytes, command: str = "fit") -> Fault:
    """Return the fault of a configuration file beside the one that works."""

    def given(place: Place) -> list[str]:
        return [*place.command(command), "--config", str(place.write("bad.yaml", content))]

    return Fault(name, given, says)


def alone(name: str, says: str, given: Callable[[Place], list[str]]) -> Fault:
    """Return the fault of a command line without the configuration that works."""
    return Fault(name, given, says)


def _fifo(place: Place) -> list[str]:
    os.mkfifo(place.folder / "pipe")
    return ["fit", "--config", str(place.folder / "pipe")]


def _twice(place: Place) -> list[str]:
    text = yaml.safe_dump(place.config) + "trainer: {max_steps: 1}\n"
    return ["fit", "--config", str(place.write("run.yaml", text))]


def _near(place: Place) -> list[str]:
    place.write("case3.yaml", "trainer: {max_steps: 3}\n")
    return ["fit", "--config", str(place.folder / "case_3.yaml")]


NESTED = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
NOT = "bad.yaml must be a YAML file of settings, but "
DATA = "saerepgeo.data.ActivationDataModule"

NEAR = r"cannot be read.*did you mean {}\? .*shipped one of case1, .*split, models/gemma-2-2b, "

FAULTS: list[Fault] = [
    config("empty", NOT + "it holds nothing", ""),
    config("blank", NOT + "it holds nothing", "\n \n"),
    config("comments", NOT + "it holds nothing", "# nothing here\n"),
    config("null", NOT + "it holds nothing", "null\n"),
    config("empty mapping", NOT + "it holds nothing", "{}\n"),
    config("a list", NOT + "it holds a list", "[data, model]\n"),
    config("text", NOT + "it holds text", "data\n"),
    config("a number", NOT + "it holds one value", "3\n"),
    config("binary", NOT + "byte 0 is no UTF-8", b"\x80\x00\x01\xff"),
    config("NUL", NOT + "character 3 cannot stand", b"a: \x00b"),
    config("latin-1", NOT + "byte 11 is no UTF-8", "data: {lm: é}".encode("latin-1")),
    config("UTF-16", NOT + "byte 0 is no UTF-8", "data: {lm: x}".encode("utf-16")),
    config("half a surrogate", NOT + "byte 9 is no UTF-8", b"data: {a: \xed\xa0\x80}"[1:]),
    config("bracket open", NOT + "line 2, column 1", "data: [1\n"),
    config("two colons", NOT + "line 1, column 8", "data: b: c\n"),
    config("tab", NOT + "line 2, column 1", "data:\n\tlm: x\n"),
    config("quote open", NOT + "line ", 'data: "open\n'),
    config("bad indent", NOT + "line ", "data:\n    a: 1\n  b: 2\n"),
    config("two documents", NOT + "line 2, column 1", "trainer: {}\n---\ntrainer: {}\n"),
    config("unknown alias", NOT + "line 1.*undefined alias", "data: *nowhere\n"),
    config("nested aliases", NOT + "its aliases", NESTED),
    config("alias of itself", NOT + "its aliases", "data: &x [*x]\n"),
    config("deep lists", NOT + "line 1.*nest", "data: " + "[" * 100_000),
    config("deep mappings", NOT + "line 1.*nest", "{a: " * 60 + "1" + "}" * 60),
    config("2 MB", NOT + "it is larger than", "#" * 2_000_000),
    config("python tag", NOT + "line 1.*constructor", "data: !!python/object/apply:os.abort []\n"),
    config("python name", NOT + "line 1.*constructor", "data: !!python/name:os.system x\n"),
    config("own tag", NOT + "line 1.*constructor", "data: !mine {a: 1}\n"),
    config("binary tag that is none", "`data` must name", "data: !!binary '*'\n"),
    config("a list as key", NOT + "line 1: a setting's name", "[a, b]: 1\n"),
    config("setting twice", NOT + "`trainer` is given twice", "trainer: {}\ntrainer: {}\n"),
    config("inner one twice", NOT + "`lm` is given twice", "data:\n  init_args: {lm: a, lm: b}\n"),
    config("merged twice", NOT + "`lm` is given twice", "a: &a {lm: 1, lm: 2}\ndata: {<<: *a}\n"),
    config("number as key", NOT + "a setting's name must be text, got 1", "1: 2\n"),
    config(
        "misspelt group",
        "dat.init_args.lm` is no.*`data.init_args.lm`",
        "dat: {init_args: {lm: x}}\n",
    ),
    config(
        "misspelt setting",
        "`data.init_args.batch_sise` is no.*batch_size",
        f"data: {{class_path: {DATA}, init_args: {{batch_sise: 3}}}}\n",
    ),
    config("of the trainer", "`trainer.max_step` is no.*max_steps", "trainer: {max_step: 3}\n"),
    config("misspelt init_args", "`data.init_arg", "data: {init_arg: {lm: x}}\n"),
    config(
        "init_args a number",
        "`data` must give the settings",
        f"data: {{class_path: {DATA}, init_args: 3}}\n",
    ),
    config("data a number", "`data` must", "data: 3\n"),
    config("data a list", "`data` must", "data: [1]\n"),
    config("trainer a number", "`trainer` must be settings", "trainer: 3\n"),
    config("trainer a list", "`trainer` must be settings", "trainer: [1]\n"),
    config(
        "under the command", "`fit.trainer.max_steps` is no", "fit: {trainer: {max_steps: 3}}\n"
    ),
    config(
        "wrong type",
        "`trainer.max_steps` must be an integer, got many",
        "trainer: {max_steps: many}\n",
    ),
    alone("no command", "the command must be one of fit, validate, test", lambda _: []),
    alone("unknown command", "did you mean fit", lambda place: place.command("fitt")),
    alone("removed command", "the command must be one of", lambda p: p.command("predict")),
    alone("no configuration", "for fit there are configs/case3.yaml", lambda _: ["fit"]),
    alone("none for validate", "for validate there are configs/case3", lambda _: ["validate"]),
    alone("none for test", "configs/case1.yaml, configs/case2.yaml", lambda _: ["test"]),
    alone("no file named", "`config` needs a value", lambda _: ["fit", "--config"]),
    alone("no file", "nowhere.yaml cannot be read", lambda _: ["fit", "--config", "nowhere.yaml"]),
    alone("nearly a file", "case_3.yaml cannot be read.*did you mean .*case3.yaml", _near),
    alone("nearly a shipped one", NEAR.format("case3"), lambda _: ["fit", "--config", "cas3"]),
    alone("nearly its path", NEAR.format("case2"), lambda _: ["test", "-c", "configs/case22.yaml"]),
    alone("an overlay alone", NEAR.format("models/gpt2-small"), lambda _: ["fit", "-c=gpt2-small"]),
    alone("no shipped one", "nothing cannot be.*; Give .*case1, ", lambda _: ["fit", "-c=nothing"]),
    alone("a folder", "no regular file", lambda p: ["fit", "--config", str(p.folder)]),
    alone("a pipe", "pipe must be.*no regular file", _fifo),
    alone("endless", "/dev/zero must be.*no regular file", lambda _: ["fit", "--config=/dev/zero"]),
    alone("of nothing", "/dev/null must be.*no regular file", lambda _: ["fit", "-c", "/dev/null"]),
    alone("group twice", "`trainer` is given twice, in lines", _twice),
    alone("inline twice", "`a` is given twice", lambda _: ["fit", "--config={a: 1, a: 2}"]),
    alone("inline syntax", "`config`.*line 2, column 1", lambda _: ["fit", "--config=[1"]),
    alone("inline number", "3 cannot be read", lambda _: ["fit", "--config=3"]),
    alone(
        "name with escapes",
        r"\\x1b\[31mred.yaml cannot be read",
        lambda _: ["fit", "--config", "\x1b[31mred.yaml"],
    ),
]
