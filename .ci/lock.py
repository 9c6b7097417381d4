"""Write the lock files: what the project's extras need, at the versions installed here.

Run it with the interpreter of an environment that has them all: `make lock`.
"""

from __future__ import annotations

import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Written by `make lock`; exact versions of all that is needed, without index or host.\n"


def closure(requirements: list[Requirement]) -> dict[str, str]:
    """Name to version of everything that `requirements` need, themselves included."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    queue = [
        (requirement, extra) for requirement in requirements for extra in ("", *requirement.extras)
    ]
    while queue:
        requirement, extra = queue.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen or (
            requirement.marker and not requirement.marker.evaluate({"extra": ""})
        ):
            continue
        seen.add((name, extra))
        installed = distribution(name)
        # Platform builds carry a local version (1.2+cpu) that another machine need not have.
        found[name] = installed.version.split("+")[0]
        for line in installed.requires or ():
            need = Requirement(line)
            if need.marker and not need.marker.evaluate({"extra": extra}):
                continue
            bare = Requirement(str(need).split(";")[0])
            queue += [(bare, wanted) for wanted in ("", *need.extras)]
    return found


def main() -> None:
    """Write serve.txt and test.txt."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    serve = [Requirement(line) for line in project["dependencies"]]
    names = ("train", "export", "test")
    test = serve + [
        requirement
        for name in names
        for requirement in map(Requirement, extras[name])
        if canonicalize_name(requirement.name) != "talipot"
    ]
    # The build backend, so that the project itself installs without a build environment.
    backend = [Requirement("setuptools")]
    for file, wanted in (("serve", serve), ("test", test)):
        lines = sorted(f"{name}=={version}" for name, version in closure(wanted + backend).items())
        (ROOT / ".ci" / "lock" / f"{file}.txt").write_text(HEADER + "\n".join(lines) + "\n")
        print(f"{file}.txt: {len(lines)} packages")


if __name__ == "__main__":
    main()
