"""Downloads published files from the Hugging Face hub, through its client and cache."""

import sys
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import DryRunFileInfo

from camseg_core.errors import ModelError, camseg_command

_TRANSFER_ERRORS = tuple(
    each
    for module in ("httpx2", "httpx")  # whichever the hub's client uses
    if module in sys.modules
    for each in (sys.modules[module].HTTPError, sys.modules[module].InvalidURL)
)
"""Errors of a transfer, such as a lost connection or a bad address, which are no OSErrors."""


def download(
    repository: str, names: tuple[str, ...], revision: str | None, report: Callable[[str], None]
) -> tuple[Path, ...]:
    """Return files of a repository as paths in the hub's cache, all from one commit.

    Only what is not cached is downloaded, and interrupted downloads resume. `revision` is a branch,
    tag or commit (default: the main branch). `report` gets a line with each file's size before the
    first download. The client's environment variables apply: `HF_ENDPOINT`, `HF_HOME`, …

    Raises:
        ModelError: the hub cannot be reached, has no such file or wants a login; or the file is not
            in the cache when offline.
    """
    files: list[DryRunFileInfo] = []
    name = names[0]
    try:
        for name in names:
            file = hf_hub_download(repository, name, revision=revision, dry_run=True)
            assert isinstance(file, DryRunFileInfo)
            files.append(file)
            size = "of unknown size" if file.file_size is None else f"{file.file_size / 1e6:.1f} MB"
            report(
                f"{repository}@{file.commit_hash[:12]} {name}: {size}, "
                f"{'in the cache' if file.is_cached else 'to download'}"
            )
        # by the branch's name: by the commit, the cache would not know the branch when offline
        paths = [
            str(hf_hub_download(repository, name := each.filename, revision=revision))
            for each in files
        ]
    except (OSError, HFValidationError, *_TRANSFER_ERRORS) as error:
        raise ModelError(
            f"cannot download {name} of {repository}: {_reason(error, revision)}"
        ) from error
    if (
        paths != [file.local_path for file in files]
        or len({file.commit_hash for file in files}) > 1
    ):
        raise ModelError(
            f"{repository} was changed on the hub during the download: "
            "start it again, or name a commit with --revision"
        )
    return tuple(map(Path, paths))


def _reason(error: Exception, revision: str | None) -> str:
    if isinstance(error, LocalEntryNotFoundError):
        return (
            "the hub cannot be reached (or HF_HUB_OFFLINE is set) and the file is not in the "
            "cache: try again with a network, or fetch the files by other means and use "
            f"`{camseg_command()} weights import`"
        )
    if isinstance(error, GatedRepoError):
        return "its authors want a login for it: accept their terms on its page and set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no revision {revision!r}"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub has no such repository, or it is private"
    if isinstance(error, EntryNotFoundError):
        return (
            "the repository has no such file in this revision; name an earlier one with --revision"
        )
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, _TRANSFER_ERRORS):
        return f"{text}; check the network, any proxy and HF_ENDPOINT; the same command resumes"
    return text
