"""Data sets by their name on the Hugging Face hub: `hub:OWNER/NAME/PATH`.

The file comes as it was published, and the loaders read it as they read one on disk. What was
fetched once is in the hub client's cache and needs no network again.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path, PurePosixPath

from safety.audits.errors import AuditDataError

SCHEME = "hub:"
_NAME = re.compile(
    r"hub:(?P<repo>[\w.\-]+/[\w.\-]+)(?:@(?P<revision>[\w.\-]+))?/(?P<path>[^@:]+)", re.ASCII
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubName:
    """A file, or a folder of files, in a data set's repository.

    Attributes:
        repo: OWNER/NAME.
        path: In the repository; a folder if its name has no suffix.
        revision: Branch, tag or commit; the default branch if None.
    """

    repo: str
    path: PurePosixPath
    revision: str | None = None

    @property
    def is_folder(self) -> bool:
        """Whether all files right in `path` are meant."""
        return not self.path.suffix


def parse(name: str) -> HubName:
    """Read `hub:OWNER/NAME/PATH` or `hub:OWNER/NAME@REVISION/PATH`.

    Raises:
        AuditDataError: It is neither.
    """
    match = _NAME.fullmatch(name)
    path = PurePosixPath(match["path"]) if match else PurePosixPath()
    if match is None or ".." in path.parts or not path.parts:
        raise AuditDataError(
            f"{name}: expected {SCHEME}OWNER/NAME/PATH or {SCHEME}OWNER/NAME@REVISION/PATH, the "
            "path of a file or of a folder in that data set's repository"
        )
    return HubName(repo=match["repo"], path=path, revision=match["revision"])


def fetch(name: str) -> Path:
    """The file or folder of a hub name on this machine, fetched if it is not here yet.

    Raises:
        AuditDataError: The name is no hub name, nothing is there, or the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = parse(name)
    path = str(wanted.path)
    try:
        if wanted.is_folder:
            root = snapshot_download(
                wanted.repo,
                repo_type="dataset",
                revision=wanted.revision,
                allow_patterns=f"{path}/*",
            )
            found = Path(root, path)
        else:
            found = Path(
                hf_hub_download(wanted.repo, path, repo_type="dataset", revision=wanted.revision)
            )
    except GatedRepoError as error:
        raise AuditDataError(
            f"{name}: its owner asks for an agreement before it is fetched; accept it and log in, "
            "or give the path of a file"
        ) from error
    except RepositoryNotFoundError as error:
        raise AuditDataError(f"{name}: the hub has no data set {wanted.repo!r}") from error
    except RevisionNotFoundError as error:
        raise AuditDataError(
            f"{name}: data set {wanted.repo!r} has no revision {wanted.revision!r}"
        ) from error
    # A kind of EntryNotFoundError, but what is missing is the network.
    except LocalEntryNotFoundError as error:
        raise AuditDataError(_unreachable(name)) from error
    except EntryNotFoundError as error:
        raise AuditDataError(f"{name}: data set {wanted.repo!r} has no file {path!r}") from error
    except (HfHubHTTPError, OSError) as error:
        raise AuditDataError(f"{_unreachable(name)} ({error})") from error
    if wanted.is_folder and not found.is_dir():
        raise AuditDataError(f"{name}: data set {wanted.repo!r} has no folder {path!r}")
    return found


def _unreachable(name: str) -> str:
    return (
        f"{name}: the hub cannot be reached and the data set is not in its cache; without a "
        "network give the path of a file"
    )
