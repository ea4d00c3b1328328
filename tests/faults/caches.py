"""Settings of the cache that make no sense."""

from collections.abc import Sequence

from faults.faults import Fault, Place

FAULTS: list[Fault] = []


def no_folder(*command: str) -> Fault:
    """Return the fault of a cache folder that is a file."""

    def given(place: Place) -> Sequence[str]:
        place.write("thesis.txt", "thesis")
        return command if command[0] == "cache" else place.command(*command)

    says = "`SAEREPGEO_CACHE` must be a folder, got `thesis.txt`"
    environment = {"SAEREPGEO_CACHE": "thesis.txt"}
    return Fault(f"a file as the folder: {' '.join(command)}", given, says, environment=environment)


def bound(value: str, command: str) -> Fault:
    """Return the fault of a bound that is none."""

    def given(place: Place) -> Sequence[str]:
        return [command] if command == "cache" else place.command(command)

    says = "`SAEREPGEO_CACHE_GIB` must be a number of GiB, at least 0, got `"
    environment = {"SAEREPGEO_CACHE_GIB": value}
    return Fault(f"bound of {value}: {command}", given, says, environment=environment)


def too_much(value: str) -> Fault:
    """Return the fault of a stream that is to be kept and does not fit."""

    def given(place: Place) -> Sequence[str]:
        return place.data(cache_stream=True).command()

    says = f"`cache_stream` would keep .* may hold .{value} GiB.; set SAEREPGEO_CACHE_GIB"
    return Fault(
        f"a stream of more than {value}", given, says, environment={"SAEREPGEO_CACHE_GIB": value}
    )


FAULTS += [
    no_folder("cache"),
    no_folder("cache", "--clear"),
    no_folder("fit"),
    no_folder("validate"),
    *(bound(value, "cache") for value in ("nan", "-1", "inf", "1e999", "8 GiB", "0x8", "8,5")),
    *(bound(value, "fit") for value in ("nan", "-0.5", "-inf", "much")),
    bound("nan", "validate"),
    *(
        Fault(f"options: {' '.join(given)}", lambda place, given=given: given, says)
        for given, says in (
            (("cache", "--clea"), "`clea` is no setting: did you mean `clear`"),
            (("cache", "all"), "`all` stands alone: every setting is given as --NAME VALUE"),
        )
    ),
    too_much("0"),
    too_much("1e-05"),
]
