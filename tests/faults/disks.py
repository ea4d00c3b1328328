"""Places that nothing can be written to: refused before training, not after it."""

from collections.abc import Sequence

from faults.faults import Fault, Place

FAULTS: list[Fault] = []


def export_to(name: str, folder: str, says: str) -> Fault:
    """Return the fault of an export folder; `thesis.txt` is a file."""

    def given(place: Place) -> Sequence[str]:
        place.write("thesis.txt", "thesis")
        place.config["trainer"]["callbacks"][2]["init_args"]["dirpath"] = folder
        return place.command()

    return Fault(f"export {name}", given, says)


FAULTS += [
    export_to("into a file", "thesis.txt", "`thesis.txt` could not be written: Not a directory"),
    export_to("below a file", "thesis.txt/sae", "`thesis.txt/sae` could not be.*Not a directory"),
    export_to("deep below", "thesis.txt/a/b", "`thesis.txt/a/b` could not be.*Not a directory"),
    export_to("into a device", "/dev/null", "`/dev/null` could not be written: Not a directory"),
    export_to("below a device", "/dev/null/sae", "`/dev/null/sae` could not be.*Not a directory"),
]
