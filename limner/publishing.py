"""A checkpoint's files with the model card and its pictures, uploaded to the Hub: listed first, private unless said."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.config import RunConfig
from limner.core.errors import UserError
from limner.core.progress import Progress, Silent
from limner.core.rundir import RunDir
from limner.exporting import export_checkpoint
from limner.reopening import config_of
from limner.report.card import CARD, RECORD, Record, picture_path, render_card, shown_pictures, shown_step
from limner.report.drawing import BASE
from limner.report.loading import Files, on_the_hub

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from limner.export.result import ExportResult

_WHERE = "--push-to-hub"
_HUB_S_OWN = (".gitattributes",)

Content = Path | bytes
"""Of a file that is uploaded."""


def publish(
    run: Path,
    repository: str,
    *,
    step: int | None = None,
    public: bool = False,
    out: Path | None = None,
    device: str = "",
    progress: Progress | None = None,
) -> str:
    """Uploads a checkpoint's files, the model card and its pictures, and returns the address.

    ``step`` must be one of which the report in RUN/report tells; unset is the one that it recommends, the last where
    it recommends none. The files are written into ``out`` and stay there, or are gone afterwards; the settings in them
    name no folders. Raises UserError where there is no report, no token, no network, and where ``repository`` is there
    already and others may see it, unless ``public`` says that they may.
    """
    progress = progress or Silent()
    rundir = RunDir(run)
    config = config_of(rundir)
    _check_name(repository)
    record = _record(rundir)
    chosen = _step(record, step, run, progress)
    api = _open_hub()
    there = _files_there(api, repository, public, progress)
    with contextlib.ExitStack() as stack:
        place = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".hub.", dir=run)))
        exports = export_checkpoint(run, chosen, out=place, device=device, progress=progress, for_others=True)
        if not exports:
            raise UserError("the recipe exports nothing.", where="export", fix="Name a format there, or leave it out.")
        files = _contents(rundir, config, record, chosen, repository, exports)
        _tell(files, repository, there, public, progress)
        return _upload(api, repository, files, chosen, public)


def _check_name(repository: str) -> None:
    from huggingface_hub import errors
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
        whole = repository.count("/") == 1
    except errors.HFValidationError:
        whole = False
    if not whole:
        raise UserError(f"{repository!r} is no name on the Hub.", where=_WHERE, fix="It is OWNER/NAME, as me/my-lora.")


# ---------------------------------------------------------------------------------------------------------- the report
def _record(rundir: RunDir) -> Record:
    fix = f"Make it first: limner compare {rundir.path}"
    try:
        record: Any = json.loads((rundir.report / RECORD).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError("the run has no report, which the model card is made of.", where=_WHERE, fix=fix) from None
    except ValueError:
        record = None
    if not isinstance(record, dict) or not {"keep", "checkpoints", "left_out", "drawn"} <= record.keys():
        where = str(rundir.report / RECORD)
        raise UserError("is damaged, or of an older Limner.", where=where, fix=fix.replace("first", "anew"))
    return record


def _step(record: Record, step: int | None, run: Path, progress: Progress) -> int:
    """Returns the step of the checkpoint to upload; the report must tell of it."""
    told = [one["step"] for one in record["checkpoints"]]
    chosen = shown_step(record) if step is None else step
    if chosen not in told:
        raise UserError(
            f"the report tells of no step {chosen}; it tells of {', '.join(map(str, told))}.",
            where="--step",
            fix=f"Compare it too: limner compare {run}",
        )
    if record["keep"]["step"] != chosen:
        progress.warn(f"the report recommends another: {record['keep']['reason']}; uploaded is step {chosen}")
    return chosen


def _contents(
    rundir: RunDir,
    config: RunConfig,
    record: Record,
    step: int,
    repository: str,
    exports: tuple[ExportResult, ...],
) -> dict[str, Content]:
    """Returns what is uploaded, by its path in the repository."""
    by_kind = {one.path.name: one.path for one in exports}
    folders = on_the_hub(list(by_kind))
    found: dict[str, Content] = {}
    for kind, folder in by_kind.items():
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            inside = file.relative_to(folder).as_posix()
            found[f"{folders[kind]}/{inside}" if folders[kind] else inside] = file
    card = render_card(config, record, step, repository.partition("/")[2], Files(repository, folders))
    pictures = {
        path: _picture(rundir.report / path, private=config.private)
        for one in shown_pictures(config, record)
        for path in (picture_path(BASE, one), picture_path(f"step_{step:06d}", one))
    }
    twice = found.keys() & {CARD, *pictures}
    if twice:
        raise RuntimeError(f"an export and the card both have {sorted(twice)[0]}")
    return {CARD: card.encode(), **pictures, **found}


def _picture(path: Path, *, private: bool) -> Content:
    """Returns a picture; the recipe that it carries names the base model, so that private ones are written anew."""
    from PIL import Image

    if not path.is_file():
        raise UserError("a picture of the report is gone.", where=str(path), fix="Make it anew with limner compare.")
    if not private:
        return path
    buffer = io.BytesIO()
    with Image.open(path) as image:
        Image.frombytes(image.mode, image.size, image.tobytes()).save(buffer, "PNG")
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------------------------- the Hub
def _open_hub() -> HfApi:
    """Returns the Hub with a token that it knows."""
    import huggingface_hub

    api = huggingface_hub.HfApi()
    with _told():
        api.whoami()
    return api


def _files_there(api: HfApi, repository: str, public: bool, progress: Progress) -> list[str]:
    """Returns the files that are in the repository; raises UserError where more people would see them than was said."""
    from huggingface_hub import errors

    with _told():
        try:
            info = api.repo_info(repository)
        except errors.RepositoryNotFoundError:
            return []
    if not info.private and not public:
        raise UserError(
            f"{repository} is there already, and everybody may see it.",
            where=_WHERE,
            fix="Add --public if that is meant, or choose another name.",
        )
    if info.private and public:
        progress.warn(f"--public: {repository} is there already and private; it stays so until its settings change")
    with _told():
        return [name for name in api.list_repo_files(repository) if name not in _HUB_S_OWN]


def _tell(files: Mapping[str, Content], repository: str, there: list[str], public: bool, progress: Progress) -> None:
    """Lists what will be uploaded."""
    seen = "public" if public else "private"
    sizes = {path: len(one) if isinstance(one, bytes) else one.stat().st_size for path, one in files.items()}
    lines = [f"  {path}, {size:,} bytes" for path, size in sorted(sizes.items())]
    progress.say("\n".join([f"uploading to {repository} ({seen}), {sum(sizes.values()):,} bytes:", *lines]))
    if rest := sorted(set(there) - files.keys()):
        progress.warn(f"{repository} has other files, which stay as they are: {', '.join(rest)}")


def _upload(api: HfApi, repository: str, files: Mapping[str, Content], step: int, public: bool) -> str:
    from huggingface_hub import CommitOperationAdd

    with _told():
        address = api.create_repo(repository, private=not public, exist_ok=True)
        operations = [CommitOperationAdd(path, content) for path, content in sorted(files.items())]
        api.create_commit(repository, operations, commit_message=f"Step {step}, with its card, by Limner")
    return str(address)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turns what the Hub refuses into words."""
    from huggingface_hub import errors

    try:
        yield
    except errors.LocalTokenNotFoundError:
        raise UserError("there is no token for the Hub on this machine.", where=_WHERE, fix="hf auth login") from None
    except errors.HfHubHTTPError as error:
        raise UserError(
            f"the Hub refuses: {_first_line(error)}.",
            where=_WHERE,
            fix="The token must be allowed to write there: hf auth login",
        ) from None
    except (OSError, ValueError, errors.HTTPError) as error:
        raise UserError(
            f"the Hub cannot be reached ({_first_line(error)}).",
            where=_WHERE,
            fix="Check the connection and HF_HUB_OFFLINE; without a token: hf auth login",
        ) from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
